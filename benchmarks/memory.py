"""The most memory that one loop of several in a process has held."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Counts from when it is made: what was held then stays out, what the loop needs of it is added.

    On a GPU what torch has allocated, on a processor the resident memory, which allocators give back late: there it is
    a rough figure, and none at all where there is no Linux.

    Args:
        device: device of the loop.
        needed: bytes held before that the loop needs, such as the base model; 0 counts everything.
        is_captured: whether the loop replays CUDA graphs, whose memory is torch's without being allocated: what torch
            has reserved counts then, for the loop and everything else in the process.
    """

    def __init__(self, device: torch.device, needed: int, is_captured: bool = False) -> None:
        self.device, self.needed, self.is_captured = device, needed, is_captured
        self.before = 0
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            if is_captured:
                torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            held: int | None = torch.cuda.memory_allocated(device)
        else:
            held = _status("VmRSS")
            if held is not None:
                _CLEAR.write_text("5", "utf-8")  # the peak starts anew
        if needed and held is not None:
            self.before = held

    def peak(self) -> int | None:
        """Returns the most bytes so far; None where the system does not say."""
        if self.device.type == "cuda":
            if self.is_captured:
                return torch.cuda.max_memory_reserved(self.device)
            return torch.cuda.max_memory_allocated(self.device) - self.before + self.needed
        most = _status("VmHWM")
        return None if most is None else most - self.before + self.needed


def _status(name: str) -> int | None:
    if not _STATUS.exists():
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB", _STATUS.read_text("utf-8"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else None
