"""A non-finite loss: the run stops, names the picture, and what it saved can be used."""

from pathlib import Path

import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.runs.checkpoint_file import SealedCheckpointIO
from cns_lightning.training.step_notices import GRADIENT, StepNotices
from tests.runs.learning import arguments, write_sequence


def test_run_stops_with_a_usable_state(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "sequence", ["cat"]), tmp_path / "run"
    # The first step throws the values so far that the second cannot be computed.
    far = ("--model.method.init_args.learning_rate", "1e30", "--model.method.init_args.token_learning_rate", "1e30")
    command = arguments(tiny_base_model, sequence, run, *far, steps=6)
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "<new1>, step 2 of the stage: the loss is nan or infinite at" in said
    assert "timestep" in said
    assert str(sequence.parent / "cat0") in said
    state = SealedCheckpointIO().load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert state["continual"]["step"] == 2
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())
    assert main(command) == 1
    assert "step 3 of the stage" in capsys.readouterr().err


def test_last_step_of_a_stage_is_looked_at_too(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "sequence", ["cat"]), tmp_path / "run"
    far = ("--model.method.init_args.learning_rate", "1e30", "--model.method.init_args.token_learning_rate", "1e30")
    assert main(arguments(tiny_base_model, sequence, run, *far, steps=2)) == 1
    assert "step 2 of the stage" in capsys.readouterr().err


def test_an_infinite_gradient_is_noticed_unless_the_loss_is_scaled() -> None:
    for is_scaled in (False, True):
        notices = StepNotices(2)
        notices.note_losses(torch.ones(2), None, 0, 1.0)
        unfit = notices.note_gradients([torch.tensor([1.0, torch.inf])], is_scaled)
        assert bool(unfit)
        assert bool(notices.vector[GRADIENT]) is not is_scaled


def test_notices_name_step_signals_and_samples() -> None:
    notices = StepNotices(4)
    notices.begin()
    notices.note_losses(torch.tensor([1.0, torch.nan]), torch.tensor(2.0), 2, 1.0)
    notices.note_signal(1)
    notices.publish(7)
    (notice,) = notices.read()
    assert (notice.step, notice.signals, notice.samples, notice.is_finite) == (7, (0, 1, 0), (3,), False)
    assert notices.read() == []


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_learns_in_float32(tiny_base_model: Path, tmp_path: Path, precision: str) -> None:
    from cns_lightning.registry.registry import NeuronRegistry

    sequence, run = write_sequence(tmp_path / "sequence", ["cat"]), tmp_path / "run"
    command = arguments(tiny_base_model, sequence, run, "--trainer.precision", precision)
    assert main(command) == 0
    record = NeuronRegistry.load(run / "registry").record("<new1>")
    assert torch.isfinite(record.values).all()
    assert record.values.abs().max() > 0


def test_accumulated_batches_are_one_step(tiny_base_model: Path, tmp_path: Path) -> None:
    from cns_lightning.registry.registry import NeuronRegistry

    sequence = write_sequence(tmp_path / "sequence", ["cat"])
    whole = arguments(tiny_base_model, sequence, tmp_path / "whole", "--data.batch_size", "4", steps=5)
    parts = arguments(tiny_base_model, sequence, tmp_path / "parts", "--trainer.accumulate_grad_batches", "2", steps=5)
    assert main(whole) == 0
    assert main(parts) == 0
    one, two = (NeuronRegistry.load(tmp_path / name / "registry").weights() for name in ("whole", "parts"))
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-5) for name in one)
