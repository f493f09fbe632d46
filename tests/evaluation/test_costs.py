"""What a run cost: of the concepts that are there, on the device that was used, and never a guess."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cns_lightning.evaluation.costs import costs_of
from cns_lightning.experiments.table import row
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import write_json, write_tensors


def registry(*tokens: str, fused_by: str | None = None) -> Any:
    """Returns what `costs_of` reads of a registry."""
    return SimpleNamespace(
        tokens=list(tokens),
        records=[SimpleNamespace(trained=10 * (number + 1)) for number, _ in enumerate(tokens)],
        entries=[SimpleNamespace(bytes=2000) for _ in tokens],
        fused_by=fused_by,
    )


def stage(token: str, training: float | None, gpu: int | None = None, resident: int = 5_000_000) -> dict[str, Any]:
    """Returns a stage's timings; None for one whose training has not begun."""
    seconds = {"selection": 1.0, "finish": 100.0} | ({} if training is None else {"training": training})
    peak = {"resident": resident} | ({} if gpu is None else {"gpu": gpu})
    return {"concept": token, "seconds": seconds, "peak_memory_bytes": peak}


def folder_of(path: Path, *stages: dict[str, Any]) -> RunFolder:
    """Writes timings."""
    write_json(path / "timings.json", {"stages": {str(number): each for number, each in enumerate(stages)}})
    return RunFolder(path)


def test_means_over_what_is_learned(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path, stage("<a>", 9.0), stage("<gone>", 50.0), stage("<b>", 19.0), stage("<under way>", None)
    )
    assert costs_of(folder, registry("<a>", "<b>")) == {
        "trained_numbers": 15, "kilobytes": 2.0, "training_seconds": 15.0, "fusion_seconds": 0.0, "peak_memory_mb": 5.0,
        "resident_memory_mb": 5.0,
        "device": "cpu",
    }  # fmt: skip


@pytest.mark.parametrize(("gpu", "device", "megabytes"), [(3_000_000, "gpu", 3.0), (0, "cpu", 5.0)])
def test_memory_of_the_device_that_was_used(tmp_path: Path, gpu: int, device: str, megabytes: float) -> None:
    costs = costs_of(folder_of(tmp_path, stage("<a>", 1.0, gpu)), registry("<a>"))
    assert (costs["device"], costs["peak_memory_mb"]) == (device, megabytes)


def test_fusion_of_the_concepts_that_are_there(tmp_path: Path) -> None:
    folder, kept = RunFolder(tmp_path), registry("<a>", "<b>", fused_by="a.Method")
    assert "fusion_seconds" not in costs_of(folder, kept)
    for count, seconds in ((1, "7.0"), (2, "99.0")):
        write_tensors(folder.fused / f"after-{count:03d}.safetensors", {"w": torch.zeros(1)}, {"seconds": seconds})
    assert costs_of(folder, kept)["fusion_seconds"] == 7.0


def test_damaged_timings_cost_no_scores(tmp_path: Path) -> None:
    (tmp_path / "timings.json").write_text("{", "utf-8")
    assert costs_of(RunFolder(tmp_path), registry("<a>")).keys() == {"trained_numbers", "kilobytes", "fusion_seconds"}


def test_seconds_of_two_kinds_of_device_have_no_mean() -> None:
    costs: list[Any] = [{"kilobytes": 2.0, "training_seconds": 9.0, "device": each} for each in ("gpu", "cpu")]
    cells = row("method", [], costs)
    assert (cells["kilobytes"], cells["training_seconds"]) == (2.0, None)
    assert row("method", [], costs[:1])["training_seconds"] == 9.0
