"""What is asked to be drawn, and the words of the command line that ask for the same."""

import random
from dataclasses import replace

import pytest

from cns_lightning.cli.generate import parser, read_strengths
from cns_lightning.drawing.request import DrawingRequest, number_text
from cns_lightning.errors import UserError
from cns_lightning.registry.registry import NeuronRegistry

PIECES = ("a <new1> cat", 'says "no"', "it's", "-n", "--prompt", "$HOME `ls`", "a\\b", "café", "50% & more; #1")


def made_up(seed: int) -> DrawingRequest:
    """Makes up a request whose texts would go wrong in a shell or a parser that does not take care."""
    chance = random.Random(seed)

    def text() -> str:
        return " ".join(chance.sample(PIECES, 2))

    return DrawingRequest(
        prompts=tuple(text() for _ in range(chance.randint(1, 3))),
        regions=tuple(
            f"0,0.25,{number_text(chance.random())},1:{text()}|{text()}" for _ in range(chance.randint(0, 2))
        ),
        negative_prompt=chance.choice(["", chance.choice(PIECES)]),
        strengths=chance.choice([{}, {"<new1>": 0.7}, {"<new1>": chance.random(), "<new2>": 1.5}]),
        pictures=chance.randint(1, 9),
        seed=chance.choice([0, 2**64 - 9]),
        upto=chance.choice([None, "<new2>"]),
        steps=chance.choice([None, 7]),
        guidance=chance.choice([None, 0.0, 7.5, chance.random() * 10]),
        batch_size=chance.choice([1, 8]),
    )


@pytest.mark.parametrize("seed", range(20))
def test_the_words_ask_for_the_same(seed: int) -> None:
    request = made_up(seed)
    read = parser().parse_args(["--run", "runs/x", *request.words()])
    assert request == DrawingRequest(
        prompts=tuple(read.prompt),
        regions=tuple(read.region),
        negative_prompt=read.negative_prompt,
        strengths=read_strengths(read.strength),
        pictures=read.n,
        seed=read.seed,
        upto=read.upto,
        steps=read.steps,
        guidance=read.guidance,
        batch_size=read.batch_size,
    )


def test_numbers_are_written_as_people_do() -> None:
    assert [number_text(each) for each in (7.0, 7.5, 0.05, 1)] == ["7", "7.5", "0.05", "1"]
    assert float(number_text(1 / 3)) == 1 / 3


@pytest.mark.parametrize(("negative", "region"), [("a dog", "0,0,1,1:a cat"), ("", "0,0,1,1:a cat|a dog")])
def test_a_negative_prompt_needs_guidance(negative: str, region: str) -> None:
    registry = NeuronRegistry.create(None, "tiny", "f" * 64)
    request = DrawingRequest(("a cat",), (region,), negative, guidance=1.0)
    with pytest.raises(UserError, match="--guidance: is 1, and negative prompts are read from above 1 on"):
        request.check(registry)
    replace(request, guidance=1.5).check(registry)
    DrawingRequest(("a cat",), ("0,0,1,1:a cat",), guidance=1.0).check(registry)
