"""What this machine has: memory, room on the disk, SLURM; beside what a run needs of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cns_lightning.doctor.findings import Finding, Severity, shortened
from cns_lightning.doctor.needs import Settings, disk_needs, gigabytes, memory_needs
from cns_lightning.slurm.job import job_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cns_lightning.doctor.base_parts import BaseParts
    from cns_lightning.doctor.needs import MemoryNeeds

PATIENCE = 10
"""Seconds that SLURM has to answer."""
ESTIMATE = "an estimate"
GPU = "the GPU"


def memory_findings(
    parts: BaseParts, settings: Settings, accelerator: str, devices: int, is_quick: bool = False
) -> list[Finding]:
    """Returns whether a step, and drawing samples, fit the device's memory.

    Args:
        parts: base model.
        settings: settings of the run.
        accelerator: ``cpu``, or anything else for GPUs.
        devices: processes on this machine, which share its main memory.
        is_quick: asks a GPU for its memory, not for what is free of it, which would take some in every process.
    """
    needs = memory_needs(parts, settings)
    if needs is None:
        return []
    is_gpu = accelerator != "cpu"
    free, device = (gpu_memory(not is_quick), GPU) if is_gpu else (free_in_main_memory(), "main memory")
    if not is_gpu and free is not None:
        free /= max(1, devices)
    found = [_memory(parts, settings, needs, free, device)]
    numbers, room = sum(parts.numbers.values()), free_in_main_memory()
    # It is read in single precision whatever it computes in, so that its fingerprint does not depend on that.
    if is_gpu and room is not None and numbers * 4 * devices > room:
        problem = (
            f"reading the base model takes {gigabytes(numbers * 4 * devices)} of main memory, {gigabytes(room)} free"
        )
        remedy = "Close other programs, or take a machine with more"
        found.append(Finding(Severity.WARNING, problem, "main memory", remedy))
    return found


def _memory(parts: BaseParts, settings: Settings, needs: MemoryNeeds, free: float | None, device: str) -> Finding:
    said = f"a step takes about {gigabytes(needs.training)}, drawing samples {gigabytes(needs.sampling)} ({ESTIMATE})"
    if free is None:
        return Finding(Severity.NOTE, said, "memory", "Ask for a device with as much")
    said += f", {device} has {gigabytes(free)}"
    if needs.peak <= free:
        return Finding(Severity.NOTE, said, "memory", "Fits")
    for changed, words in _smaller(settings, device):
        less = memory_needs(parts, changed)
        if less is not None and less.peak <= free:
            return Finding(Severity.WARNING, said, "memory", f"Set {words}: about {gigabytes(less.peak)}")
    return Finding(Severity.WARNING, said, "memory", "Take a larger device, or a smaller base model")


def _smaller(settings: Settings, device: str) -> Iterable[tuple[Settings, str]]:
    """Yields settings that take less, the least change first, with how to set them."""
    few = (replace(settings, batch=1), "data.batch_size 1 (trainer.accumulate_grad_batches makes up for it)")
    again = (replace(settings, checkpointing=True), "model.gradient_checkpointing true")
    none = (replace(settings, sheet=0), "samples.pictures 0")
    both = (replace(settings, checkpointing=True, sheet=0), f"{again[1]} and {none[1]}")
    every = (replace(settings, checkpointing=True, sheet=0, batch=1), f"{again[1]}, {none[1]} and data.batch_size 1")
    half = (replace(every[0], is_half=True), f"{every[1]}, model.base_dtype bfloat16")
    yield from (again, none, few, both, every)
    if device == GPU:
        yield half


def gpu_memory(is_free: bool) -> float | None:
    """Returns the bytes of the GPU that has least, or of which least are free; None where there is no GPU."""
    if not torch.cuda.is_available():
        return None
    numbers = range(torch.cuda.device_count())
    if is_free:
        return float(min(torch.cuda.mem_get_info(number)[0] for number in numbers))
    return float(min(torch.cuda.get_device_properties(number).total_memory for number in numbers))


def free_in_main_memory() -> float | None:
    """Returns the bytes of main memory that programs can still have; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    try:
        return float(import_module("psutil").virtual_memory().available)
    except ImportError:
        return None


def disk_findings(parts: BaseParts | None, settings: Settings, run: Path) -> list[Finding]:
    """Returns whether the run folder can be written, and has room for what the run writes.

    Args:
        parts: base model; None where it cannot be found.
        settings: settings of the run.
        run: run folder, which need not exist.
    """
    where = f"--run {shortened(str(run))}"
    there = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        problem = f"{there} cannot be written to" if there.is_dir() else f"{there} is a file"
        return [Finding(Severity.STOPS, problem, where, "Choose another folder, or change its permissions")]
    bytes_needed = disk_needs(parts, settings) if parts is not None else None
    if bytes_needed is None or not settings.concepts:
        return []
    (first, needed), free = bytes_needed, shutil.disk_usage(there).free
    said = f"the run writes at most about {gigabytes(needed)} ({ESTIMATE}), {gigabytes(free)} free"
    if free >= needed:
        return [Finding(Severity.NOTE, said, where, "Fits")]
    remedy = "Free some space, or choose a folder on another disk"
    severity = Severity.WARNING if free >= first else Severity.STOPS
    return [Finding(severity, said, where, remedy)]


def is_for_slurm(files: Iterable[Path]) -> bool:
    """Returns whether a configuration is one for SLURM, by the names of its files."""
    return any("slurm" in path.stem.lower() for path in files)


def slurm_findings() -> list[Finding]:
    """Returns whether SLURM can be reached from here."""
    if job_id() is not None:
        return []
    where, remedy = "SLURM", "Run this on a login node of the cluster; launch --dry-run shows the script anywhere"
    if shutil.which("sbatch") is None:
        return [Finding(Severity.WARNING, "this machine has no sbatch", where, remedy)]
    try:
        done = subprocess.run(
            ["scontrol", "ping"],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return [Finding(Severity.WARNING, f"does not answer within {PATIENCE} s", where, "Ask its administrators")]
    if done.returncode or "UP" not in done.stdout:
        said = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[:1]).rstrip(".") or "no answer"
        return [Finding(Severity.WARNING, f"cannot be reached: {said}", where, "Ask its administrators")]
    return [
        Finding(Severity.NOTE, "answers; the job's machine decides on GPU and memory", where, "Start it with launch")
    ]
