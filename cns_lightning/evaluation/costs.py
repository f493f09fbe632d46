"""What a run cost, read off what it left behind."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from cns_lightning.storage import read_json, read_tensors

if TYPE_CHECKING:
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.run_folder import RunFolder

COSTS = ("trained_numbers", "kilobytes", "training_seconds", "fusion_seconds", "peak_memory_mb")


def costs_of(folder: RunFolder, registry: NeuronRegistry) -> dict[str, float]:
    """Gives what a concept of a run cost, the mean over its concepts; memory is the peak of the whole run.

    Numbers of the optimizer and kilobytes of the registry; seconds of selection and training, without saving and
    samples; seconds of the last fusion, 0 where nothing is fused; megabytes on the GPU that was used, else resident.

    Args:
        folder: of the run.
        registry: of the run, with at least one concept.
    """
    stages = list(read_json(folder.timings)["stages"].values()) if folder.timings.exists() else []
    seconds = [sum(each for phase, each in stage["seconds"].items() if phase != "finish") for stage in stages]
    peaks = [_peak(stage["peak_memory_bytes"]) for stage in stages if "peak_memory_bytes" in stage]
    fused = sorted(folder.fused.glob("*.safetensors"))
    costs = {
        "trained_numbers": statistics.fmean(record.trained for record in registry.records),
        "kilobytes": statistics.fmean(entry.bytes for entry in registry.entries) / 1e3,
        "fusion_seconds": float(read_tensors(fused[-1])[1]["seconds"]) if fused else 0.0,
    }
    if seconds:
        costs["training_seconds"] = statistics.fmean(seconds)
    if peaks:
        costs["peak_memory_mb"] = max(peaks) / 1e6
    return costs


def _peak(of_kind: dict[str, int]) -> int:
    # A run on the processor of a machine with a GPU has used none of the GPU.
    return of_kind.get("gpu") or of_kind["resident"]
