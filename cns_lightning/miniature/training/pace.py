"""The precision and the attention kernel with which a training step is fastest on a machine, found by timing them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from cns_lightning.storage import read_json, write_json

PRECISIONS = ("float32", "bfloat16")
KERNELS = {
    "math": [SDPBackend.MATH],
    "fused": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
}


@dataclass(frozen=True)
class Pace:
    """How a training step is computed.

    On a processor without instructions for it bfloat16 takes 2.5 times as long as float32, and on a GPU a fraction; the
    fused attention is slower than the plain one on small grids, and faster on large ones.

    Attributes:
        precision: ``float32`` or ``bfloat16``, of autocast.
        kernel: kernel of attention, ``math`` or ``fused``.
        compiled: whether torch.compile makes the code; only on a GPU.
    """

    precision: str = "float32"
    kernel: str = "math"
    compiled: bool = False

    def autocast(self, device: str) -> torch.autocast:
        """Returns the context of the precision, on ``cpu`` or ``cuda``."""
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def attention(self) -> AbstractContextManager[Any]:
        """Returns the context of the attention kernel."""
        return sdpa_kernel(KERNELS[self.kernel])


def paces(device: str) -> list[Pace]:
    """Lists the paces worth timing on a device, ``cpu`` or ``cuda``."""
    if device == "cuda":
        return [Pace("bfloat16", "fused", compiled) for compiled in (False, True)]
    return [Pace(*each) for each in product(PRECISIONS, KERNELS)]


def fastest_pace(path: Path, candidates: list[Pace], seconds: Callable[[Pace], float]) -> Pace:
    """Returns the pace at which a step is fastest: the one measured before, else measured now and kept.

    Kept, so that a training that goes on in another session goes on as it began.

    Args:
        path: JSON file of the choice.
        candidates: paces to time, the first one known to be right.
        seconds: measures a step at a pace; infinite where the pace computes something else.
    """
    if path.exists():
        return Pace(**read_json(path)["fastest"])
    measured = {pace: seconds(pace) for pace in candidates}
    fastest = min(measured, key=lambda pace: measured[pace])
    rows = [{**asdict(pace), "seconds": round(value, 4)} for pace, value in measured.items()]
    write_json(path, {"fastest": asdict(fastest), "measured": rows})
    return fastest
