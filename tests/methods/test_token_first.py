"""CNS that learns the token alone first: which steps move what, a token that stays short, and exact continuation."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.text import TextStates, text_states
from cns_lightning.module import ContinualPersonalization
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt

FAST = ("--model.method.token_learning_rate", "0.05", "--model.method.learning_rate", "0.05",
        "--model.method.balance_steps", "1")  # fmt: skip


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sequence(tmp_path_factory.mktemp("one"), ["cat"])


def learned(base: Path, sequence: Path, run: Path, steps: int, *more: str) -> ConceptRecord:
    assert main(arguments(base, sequence, run, *FAST, *more, steps=steps)) == 0
    return NeuronRegistry.load(run / "registry").record("<new1>")


def test_the_token_learns_in_the_first_steps_and_the_neurons_in_the_others(
    tiny_base_model: Path, sequence: Path, tmp_path: Path
) -> None:
    short = ("--model.method.token_norm", "1.2")
    token = learned(tiny_base_model, sequence, tmp_path / "token", 3, "--model.method.token_first", "1", *short)
    both = learned(tiny_base_model, sequence, tmp_path / "both", 6, "--model.method.token_first", "0.5", *short)
    assert not token.values.any()
    assert both.values.all()
    # Not one of the neurons' steps has moved it, and none of its own has been another for their sake.
    assert torch.equal(token.embeddings[0], both.embeddings[0])
    frozen = learned(tiny_base_model, sequence, tmp_path / "frozen", 3, "--model.method.token_learning_rate", "0")
    assert not torch.equal(frozen.embeddings[0], both.embeddings[0])


def test_prompts_are_encoded_once_while_the_token_stands_still(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, moments, plain = [], [], ContinualPersonalization.optimizer_step

    def watched(module: ContinualPersonalization, *arguments: Any, **keywords: Any) -> None:
        plain(module, *arguments, **keywords)
        optimizer = module.trainer.optimizers[0]
        moments.append([int(optimizer.state.get(each, {}).get("step", 0)) for each in module.trained_parameters()])

    def counted(base: BaseModel, prompts: list[str], with_gradient: bool = False) -> TextStates:
        encoded.append((with_gradient, len(prompts)))
        return text_states(base, prompts, with_gradient)

    monkeypatch.setattr(ContinualPersonalization, "optimizer_step", watched)
    monkeypatch.setattr("cns_lightning.methods.base.text_states", counted)
    monkeypatch.setattr("cns_lightning.methods.cns.text_states", counted)
    once = ("--model.method.token_first", "0.5", "--metrics.fixed_noise_every_steps", "0")
    learned(tiny_base_model, sequence, tmp_path / "run", 6, *once)
    # The neurons' moments are there when they begin to learn.
    assert moments == [[1, 1], [2, 2], [3, 3], [4, 3], [5, 3], [6, 3]]
    assert [count for with_gradient, count in encoded if with_gradient] == [2, 2, 2]
    # One picture's prompt after the other, and none twice: three steps of two would come to six.
    assert 1 <= [count for _, count in encoded].count(1) <= 3


def test_the_token_stays_as_short_as_it_is_asked_to(tiny_base_model: Path, sequence: Path, tmp_path: Path) -> None:
    more = {
        "start": ("--model.method.token_learning_rate", "0"),
        "free": (),
        "short": ("--model.method.token_norm", "0.5"),
    }
    lengths = {
        name: learned(tiny_base_model, sequence, tmp_path / name, 3, *each).embeddings[0].norm().item()
        for name, each in more.items()
    }
    assert lengths["free"] > 0.6 * lengths["start"]
    assert lengths["short"] <= 0.5 * lengths["start"] * (1 + 1e-5)


@pytest.mark.parametrize(("step", "falls"), [(2, "true"), (3, "false"), (4, "true"), (5, "true")])
def test_a_stopped_stage_goes_on_exactly(
    step: int, falls: str, tiny_base_model: Path, sequence: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (*FAST, CALLBACK, "--model.method.token_first", "0.5", "--model.method.token_norm", "1.2",
            "--model.method.learning_rate_falls", falls, "--model.method.balance_steps", "2")  # fmt: skip
    whole, other = (arguments(tiny_base_model, sequence, tmp_path / name, *more, steps=6) for name in "ab")
    assert main(whole) == 0
    monkeypatch.setattr(StopAt, "step", step)
    with pytest.raises(SystemExit):
        main(other)
    monkeypatch.setattr(StopAt, "step", None)
    assert main(other) == 0
    name = "registry/000-new1.safetensors"
    assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_a_stage_too_short_for_its_tie_to_earlier_concepts_is_named(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat", "dog"])
    first = ("--model.method.token_first", "0.5", "--model.method.balance_steps", "2")
    assert main(arguments(tiny_base_model, sequence, tmp_path / "short", *first, steps=4)) == 0
    said = capsys.readouterr().err
    assert (
        "concept 2/2 <new2> dog: nothing holds the earlier concepts, L_reg never acts: the neurons learn for 2" in said
    )
    assert "concept 1/2 <new1> cat: nothing holds" not in said
    assert main(arguments(tiny_base_model, sequence, tmp_path / "long", *first, steps=6)) == 0
    assert "nothing holds" not in capsys.readouterr().err
