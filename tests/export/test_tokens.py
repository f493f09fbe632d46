"""The stems of token files, with a vocabulary of CLIP's kind: no ordinary words, none within another."""

import re
from itertools import permutations

import pytest
import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.text import token_ids
from cns_lightning.errors import UserError
from cns_lightning.export.learned import LearnedConcept
from cns_lightning.export.tokens import bundle_tensors, spelling_rows, token_stems


def stands_in(short: list[int], text: list[int]) -> bool:
    return any(text[start : start + len(short)] == short for start in range(len(text) - len(short) + 1))


def test_brackets_are_left_out(base: BaseModel) -> None:
    assert token_stems(["<new1>", "<my-mug>"], base.tokenizers[0]) == {"<new1>": "new1", "<my-mug>": "mymug"}


def test_an_ordinary_word_gets_a_prefix(base: BaseModel) -> None:
    tokenizer = base.tokenizers[0]
    assert len(token_ids(tokenizer, "cat")) == 1
    assert token_stems(["<cat>", "<7>"], tokenizer) == {"<cat>": "cnscat", "<7>": "cns7"}
    assert token_stems(["<com1>", "<lpt2>"], tokenizer) == {"<com1>": "cnscom1", "<lpt2>": "cnslpt2"}, "devices"


@pytest.mark.parametrize(
    "tokens",
    [
        [f"<new{number}>" for number in range(1, 13)],
        ["<new10>", "<new1>"],
        ["<1>", "<11>", "<111>"],
        ["<ab>", "<a-b>", "<a_b>"],
        ["<猫>", "<犬>"],
        ["<mo>", "<mo1>", "<1mo1>"],
    ],
)
def test_no_stem_stands_within_another(base: BaseModel, tokens: list[str]) -> None:
    tokenizer = base.tokenizers[0]
    stems = token_stems(tokens, tokenizer)
    assert len({stem.lower() for stem in stems.values()}) == len(tokens)
    ids = [token_ids(tokenizer, stem) for stem in stems.values()]
    assert not any(stands_in(one, other) for one, other in permutations(ids, 2))
    assert all(len(each) > 1 for each in ids)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", stem) for stem in stems.values())


def test_earlier_stems_stay_when_more_is_learned(base: BaseModel) -> None:
    tokens = [f"<new{number}>" for number in range(1, 13)]
    whole = token_stems(tokens, base.tokenizers[0])
    assert whole["<new1>"] == "new1"
    for count in (1, 9, 10):
        assert token_stems(tokens[:count], base.tokenizers[0]) == {token: whole[token] for token in tokens[:count]}


@pytest.mark.parametrize("text", ["new1, here", "a photo of NEW1.", "(new1:1.2)"])
def test_a_stem_fires_beside_punctuation(base: BaseModel, text: str) -> None:
    tokenizer = base.tokenizers[0]
    stem = token_stems(["<new1>"], tokenizer)["<new1>"]
    assert stands_in(token_ids(tokenizer, stem), token_ids(tokenizer, text))


def test_how_to_write_it() -> None:
    heading, row = spelling_rows({"<momo>": "cnsmomo"})
    assert dict(zip(heading, row, strict=True)) == {
        "token": "<momo>",
        "A1111, Forge": "cnsmomo",
        "ComfyUI": "embedding:cnsmomo",
        "InvokeAI": "<cnsmomo>",
        "diffusers": "<momo>",
    }


def concepts(count: int, encoders: int) -> list[LearnedConcept]:
    rows = tuple(torch.full((1, 4), float(number)) for number in range(encoders))
    return [LearnedConcept(f"<n{n}>", "cat", "animal", f"a <n{n}> cat", rows, True) for n in range(count)]


def test_bundles_have_a1111_s_keys() -> None:
    stems = {"<n0>": "na", "<n1>": "nb"}
    assert set(bundle_tensors(concepts(2, 1), stems)) == {
        "bundle_emb.na.string_to_param.*", "bundle_emb.nb.string_to_param.*",
    }  # fmt: skip
    found = bundle_tensors(concepts(1, 2), stems)
    assert {name: float(tensor[0, 0]) for name, tensor in found.items()} == {
        "bundle_emb.na.clip_l": 0, "bundle_emb.na.clip_g": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("most", "encoders"), [(12, 1), (6, 2)])
def test_bundles_that_forge_would_drop_are_refused(most: int, encoders: int) -> None:
    stems = {f"<n{number}>": f"n{number}" for number in range(13)}
    assert len(bundle_tensors(concepts(most, encoders), stems)) == 12
    with pytest.raises(UserError, match="beyond 12 Forge drops the whole file"):
        bundle_tensors(concepts(most + 1, encoders), stems)
