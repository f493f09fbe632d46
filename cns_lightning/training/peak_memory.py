"""The most memory that this process has held so far."""

from __future__ import annotations

import sys
from typing import Any, cast

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None


def peak_memory() -> dict[str, int]:
    """Returns the peak memory of the process so far in bytes: resident, and on the GPU where there is one."""
    peak = {"resident": peak_resident()}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return peak


def peak_resident() -> int:
    """Returns the peak of this process's resident memory in bytes."""
    if resource is None:
        import psutil

        return cast("Any", psutil.Process().memory_info()).peak_wset
    # Kilobytes, but for macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
