"""The loops of `benchmarks.step` train, and leave the model of the `fit` they stand still for as it was."""

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import step
from benchmarks.loops import BareLoop, CustomDiffusionLoop, Loop, LoraLoop, aside
from benchmarks.shapes import random_base
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.neurons.mask import NeuronMask

ARGUMENTS = argparse.Namespace(shapes="tiny", size=64, device="cpu", rounds=2, steps=2)


def loops(precision: str, dtype: torch.dtype) -> list[Loop]:
    base = random_base("tiny", 64, dtype=dtype)
    drawn = torch.Generator().manual_seed(0)
    bools = {
        name: torch.rand(each.weight.shape, generator=drawn) < 0.1
        for name, each in key_value_projections(base.unet).items()
    }
    bare = BareLoop(base, 2, precision, NeuronMask.from_bools(bools))
    return [bare, LoraLoop(base, 2, precision), CustomDiffusionLoop(base, 2, precision)]


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_every_loop_trains_and_leaves_the_base_model_as_it_was(precision: str, dtype: torch.dtype) -> None:
    for loop in loops(precision, dtype):
        parts = [loop.base.unet, *loop.base.text_encoders]
        before = [{name: each.clone() for name, each in part.state_dict().items()} for part in parts]
        kept = [list(part.parameters()) for part in parts]
        with aside(loop.base), loop.in_place():
            trained = [each for group in loop.optimizer.param_groups for each in group["params"]]  # type: ignore[attr-defined]
            started = [each.detach().clone() for each in trained]
            for _ in range(2):
                loop.step()
            assert any(not torch.equal(each, start) for each, start in zip(trained, started, strict=True)), loop.name
            assert all(bool(torch.isfinite(each).all()) for each in trained)
        for part, states, parameters in zip(parts, before, kept, strict=True):
            assert list(map(id, part.parameters())) == list(map(id, parameters))
            assert not any(each.requires_grad for each in part.parameters())
            now = part.state_dict()
            assert now.keys() == states.keys()
            assert all(torch.equal(now[name], states[name]) for name in states), loop.name


def test_fit_learns_the_same_bits_with_the_loops_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = step.measure(ARGUMENTS, "plain", 2, _made(tmp_path / "with"))
    assert set(found["loops"]) == {"fit", BareLoop.name, LoraLoop.name, CustomDiffusionLoop.name}
    assert all(len(each["all_seconds"]) == 2 and each["seconds"] > 0 for each in found["loops"].values())
    assert found["operations"] > 0
    text = step.table(found, 1e9)
    assert all(f"| {name} |" in text for name in found["loops"])
    assert sum("goal" in line for line in step.goals([found], {"bfloat16": 1.0}, is_gpu=False)) == 4
    monkeypatch.setattr(step.Rounds, "_others", lambda *_: None)
    step.measure(ARGUMENTS, "plain", 2, _made(tmp_path / "without"))
    with_loops, without = (
        (tmp_path / name / "plain-2" / "registry" / "000-new1.safetensors").read_bytes() for name in ("with", "without")
    )
    assert with_loops == without


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
