"""What only a GPU shows: every method and precision there, going on after a stop, a hot loop that never waits."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.diffusion.projections import TEXT_PREFIX
from cns_lightning.methods.discovery import method_configs
from cns_lightning.module import ContinualPersonalization
from cns_lightning.pipeline import load_pipeline
from tests.runs.learning import arguments, learn, write_sequence
from tests.runs.processes import assert_same
from tests.runs.stop_at import CALLBACK, StopAt

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
GPU = ("--trainer.accelerator", "gpu")
METHODS = list(method_configs())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_there_and_is_replayed_bit_for_bit(
    method: str,
    tiny_base_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: dict[str, torch.Tensor] = {}
    plain = ContinualPersonalization.finish_stage

    def finish(module: ContinualPersonalization) -> None:
        plain(module)
        held.update({name: each.weight.detach().cpu() for name, each in module.projections.items()})

    monkeypatch.setattr(ContinualPersonalization, "finish_stage", finish)
    run = learn(method, tiny_base_model, tmp_path, *GPU)
    assert main(["concepts", "--run", str(run), "--verify"]) == 0, capsys.readouterr()
    learned = load_pipeline(run)
    weights = {**dict(learned.unet.named_parameters()), **{
        f"{TEXT_PREFIX}{name}": each for name, each in learned.text_encoder.named_parameters()
    }}  # fmt: skip
    assert held
    assert all(torch.equal(weights[name], weight) for name, weight in held.items())
    stages = json.loads((run / "timings.json").read_text("utf-8"))["stages"]
    assert all(stage["peak_memory_bytes"]["gpu"] > 0 for stage in stages.values())


@pytest.mark.parametrize("mode", [(), ("compile",), ("cuda_graph",), ("compile", "cuda_graph")])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_every_precision_and_mode_goes_on_after_a_stop_exactly(
    precision: str, mode: tuple[str, ...], tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stopped in the second of three stages, with L_reg at work: the third builds on what the continued one worked out.
    sequence = write_sequence(tmp_path / "sequence", ["cat", "dog", "cup"])
    fast = [word for key in mode for word in (f"--training.{key}", "true")]
    # With the token first the stop lies where the neurons begin to learn, and what is captured or compiled is another.
    first = ("--model.method.init_args.token_first", "0.5") if mode else ()
    chosen = (*GPU, "--trainer.precision", precision, "--model.method.init_args.balance_steps", "1", *fast, *first)
    command = arguments(tiny_base_model, sequence, tmp_path / "stopped", *chosen, CALLBACK, steps=4)
    monkeypatch.setattr(StopAt, "step", 7)
    with pytest.raises(SystemExit):
        main(command)
    monkeypatch.setattr(StopAt, "step", None)
    assert main(command) == 0
    assert main(arguments(tiny_base_model, sequence, tmp_path / "whole", *chosen, CALLBACK, steps=4)) == 0
    assert_same(tmp_path / "stopped", tmp_path / "whole")
    last = "registry/002-new3.safetensors"
    assert (tmp_path / "stopped" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_there(precision: str, tiny_base_model: Path, tmp_path: Path) -> None:
    learn("cns", tiny_base_model, tmp_path, *GPU, "--trainer.precision", precision, "--trainer.gradient_clip_val", "1")


def test_pictures_are_drawn_and_scored_there(tiny_base_model: Path, tiny_judge: Path, tmp_path: Path) -> None:
    run = learn("cns", tiny_base_model, tmp_path, *GPU)
    scored = ["test", "--run", str(run), "--judge", str(tiny_judge), "--pictures", "1", "--steps", "2"]
    assert main([*scored, "--device", "cuda"]) == 0
    there = json.loads((run / "evaluation" / "scores.json").read_text("utf-8"))["groups"]
    # The same pictures, which are not drawn again, read by the judge on the processor.
    assert main([*scored, "--device", "cpu"]) == 0
    here = json.loads((run / "evaluation" / "scores.json").read_text("utf-8"))["groups"]
    assert there["single"] == pytest.approx(here["single"], abs=1e-4)
    assert main(["generate", "--run", str(run), "--prompt", "a <new1> cat", "--steps", "2", "--n", "2"]) == 0


def test_a_loss_that_is_not_finite_is_named(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat"])
    far = ("--model.method.init_args.learning_rate", "1e30", "--model.method.init_args.token_learning_rate", "1e30")
    assert main(arguments(tiny_base_model, sequence, tmp_path / "run", *GPU, *far, steps=6)) == 1
    assert "<new1>, step 2 of the stage: the loss is nan or infinite at" in capsys.readouterr().err


@pytest.mark.parametrize("graph", ["false", "true"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_hot_loop_never_waits_for_the_device(
    method: str, precision: str, graph: str, tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, plain = 8, ContinualPersonalization.training_step

    def watched(module: ContinualPersonalization, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        # Not the first steps, which also find algorithms, and not the last, which waits for what it saw.
        torch.cuda.set_sync_debug_mode("warn" if 2 <= module.step < steps - 1 else "default")
        return plain(module, batch, batch_idx)

    monkeypatch.setattr(ContinualPersonalization, "training_step", watched)
    sequence = write_sequence(tmp_path / "sequence", ["cat"])
    command = arguments(tiny_base_model, sequence, tmp_path / "run", *GPU, "--trainer.precision", precision,
                        "--model.method.init_args.balance_steps" if method == "cns" else "--seed_everything", "1",
                        "--training.cuda_graph", graph, method=method, steps=steps)  # fmt: skip
    with warnings.catch_warnings(record=True) as noticed:
        warnings.simplefilter("always")
        try:
            assert main(command) == 0
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [f"{each.filename}:{each.lineno}" for each in noticed if "called a synchronizing" in str(each.message)]
    assert not waits, sorted(set(waits))
