"""The loop of the miniature's training: goes on as if it had not stopped, and keeps the pace it began with."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cns_lightning.miniature.training.loop import Schedule, TrainingLoop
from cns_lightning.miniature.training.pace import Pace, fastest_pace, paces
from cns_lightning.storage import read_json, write_json

SCHEDULE = Schedule(steps=6, learning_rate=0.1, warmup=2, averaging=0.5)


class Stopped(Exception):
    """Stands for a session that ends."""


def trained(folder: Path, stop_at: int | None = None) -> nn.Linear:
    torch.manual_seed(0)
    module = nn.Linear(4, 2)
    loop = TrainingLoop("test", module, folder, SCHEDULE, save_every=2)

    def loss_at(step: int) -> Tensor:
        if step == stop_at:
            raise Stopped
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        return (module(inputs) - inputs[:, :2]).square().mean()

    loop.run(loss_at)
    loop.load_averages()
    return module


def test_a_training_that_stopped_ends_as_one_that_did_not(tmp_path: Path) -> None:
    for name in ("whole", "parts"):  # two measurements may choose differently
        write_json(tmp_path / name / "pace.json", {"fastest": asdict(Pace())})
    whole = trained(tmp_path / "whole")
    with pytest.raises(Stopped):
        trained(tmp_path / "parts", stop_at=3)
    again = trained(tmp_path / "parts")
    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), again.parameters(), strict=True))
    torch.manual_seed(0)
    assert not torch.equal(whole.weight, nn.Linear(4, 2).weight)


def test_the_fastest_pace_is_measured_once(tmp_path: Path) -> None:
    path, slow = tmp_path / "pace.json", Pace("bfloat16", "fused")
    assert fastest_pace(path, paces("cpu"), lambda pace: 1.0 if pace == slow else 2.0) == slow
    assert len(read_json(path)["measured"]) == 4

    def not_again(pace: Pace) -> float:
        raise AssertionError(pace)

    assert fastest_pace(path, paces("cpu"), not_again) == slow


def test_a_pace_that_computes_something_else_is_not_taken(tmp_path: Path) -> None:
    module = nn.Linear(4, 2)
    loop = TrainingLoop("test", module, tmp_path, SCHEDULE)

    def loss_at(step: int) -> Tensor:
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        # As a faulty compiler did: no error, and gradients of zero.
        return (module(inputs) * (0 if loop.pace.compiled else 1)).square().mean()

    fast, right = Pace("float32", "math", compiled=True), Pace("float32", "math")
    assert loop._seconds(right, loss_at) < float("inf")
    assert loop._seconds(fast, loss_at) == float("inf")
