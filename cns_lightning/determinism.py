"""Random draws as pure functions of what they are for: no state to save, no order of calls to keep.

Drawn on the CPU, whatever the default device is: a GPU's generator gives other numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def generator(seed: int, *key: int | str) -> torch.Generator:
    """Returns a fresh generator whose numbers depend on seed and key alone."""
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little") & (2**63 - 1))


def normal(shape: Sequence[int], seed: int, *key: int | str) -> Tensor:
    """Draws from the unit normal, float32."""
    return torch.randn(tuple(shape), generator=generator(seed, *key), device="cpu")


def uniform(seed: int, *key: int | str) -> float:
    """Draws from 0 to 1, without 1."""
    return float(torch.rand((), generator=generator(seed, *key), dtype=torch.float64, device="cpu"))


def integer(high: int, seed: int, *key: int | str) -> int:
    """Draws from 0 to ``high`` - 1."""
    return int(torch.randint(high, (), generator=generator(seed, *key), device="cpu"))


def noise_for(shape: Sequence[int], seed: int, stage: int, step: int, sample: int) -> Tensor:
    """Draws the noise of one sample of a step; ``sample`` counts over all ranks."""
    return normal(shape, seed, "noise", stage, step, sample)


def timestep_for(steps: int, power: float, seed: int, *key: int | str) -> int:
    """Draws a diffusion timestep from 0 to ``steps`` - 1.

    Args:
        steps: number of noise levels.
        power: 1 draws all alike often; above, noisy ones more often: steps (1 - u^power) with u uniform in [0, 1].
        seed: base random seed.
        key: what it is drawn for.

    Source: cubic sampling of T2I-Adapter (arXiv 2302.08453), which has a power of 3.
    """
    if power == 1:
        return integer(steps, seed, *key)
    return min(steps - 1, int(steps * (1 - uniform(seed, *key) ** power)))
