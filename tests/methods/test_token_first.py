"""CNS that learns the token alone first: which steps move what, a token that stays short, and exact continuation."""

from pathlib import Path

import pytest
import torch

from cns_lightning.cli.main import main
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
