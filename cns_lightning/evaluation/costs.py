"""What a run cost, read off what it left behind."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from cns_lightning.errors import UserError
from cns_lightning.registry.fused import SECONDS
from cns_lightning.storage import read_json, read_tensors

if TYPE_CHECKING:
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.runs.folder import RunFolder

COSTS = ("trained_numbers", "kilobytes", "training_seconds", "fusion_seconds", "peak_memory_mb", "resident_memory_mb")
DEVICE = "device"
"""Key that says what computed: ``gpu`` or ``cpu``; seconds and memory of the two do not compare."""


def costs_of(folder: RunFolder, registry: NeuronRegistry) -> dict[str, Any]:
    """Returns what a concept of a run cost, the mean over its concepts; memory is the peak of the whole run.

    Numbers of the optimizer and kilobytes of the registry; seconds of selection and training, without saving and
    samples; seconds of the last fusion, 0 where nothing is fused; megabytes on the GPU, in main memory without one; and
    megabytes of main memory in any case, where a fusion holds its matrices. What the folder does not tell is left out.

    Args:
        folder: folder of the run.
        registry: registry of the run, with at least one concept.
    """
    costs: dict[str, Any] = {
        "trained_numbers": statistics.fmean(record.trained for record in registry.records),
        "kilobytes": statistics.fmean(entry.bytes for entry in registry.entries) / 1e3,
    }
    fused = _seconds_of_fusion(folder, registry)
    if fused is not None:
        costs["fusion_seconds"] = fused
    stages = _stages(folder, registry)
    if stages:
        costs["training_seconds"] = statistics.fmean(
            sum(each for phase, each in stage["seconds"].items() if phase != "finish") for stage in stages
        )
        peaks = [stage["peak_memory_bytes"] for stage in stages]
        # A run on the processor of a machine with a GPU has used none of the GPU.
        kind = "gpu" if any(peak.get("gpu") for peak in peaks) else "resident"
        costs["peak_memory_mb"] = max(peak[kind] for peak in peaks) / 1e6
        costs["resident_memory_mb"] = max(peak["resident"] for peak in peaks) / 1e6
        costs[DEVICE] = "gpu" if kind == "gpu" else "cpu"
    return costs


def _stages(folder: RunFolder, registry: NeuronRegistry) -> list[dict[str, Any]]:
    """Returns the timings of the concepts that are learned: not of one under way, nor of one taken out."""
    try:
        stages = read_json(folder.timings)["stages"].values()
        return [stage for stage in stages if stage["concept"] in registry.tokens and "training" in stage["seconds"]]
    except (UserError, KeyError, TypeError, AttributeError):
        return []


def _seconds_of_fusion(folder: RunFolder, registry: NeuronRegistry) -> float | None:
    if registry.fused_by is None:
        return 0.0
    try:
        return float(read_tensors(folder.fused_after(len(registry.tokens)))[1][SECONDS])
    except (UserError, KeyError, ValueError):
        return None
