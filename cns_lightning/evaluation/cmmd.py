"""CMMD: how far apart two sets of pictures are as distributions, by the judge's vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

SIGMA, SCALE = 10.0, 1000.0
"""Bandwidth of the kernel and factor of the result, as published."""


def cmmd(one: Tensor, other: Tensor) -> float:
    """Computes the squared maximum mean discrepancy of two sets of vectors under a Gaussian kernel, times 1000.

    The biased estimator of the published code, which counts each vector's pair with itself: never negative but for
    rounding, 0 for equal sets. For unit vectors, which are close beside the bandwidth, nearly ten times the squared
    distance between the means of the two sets, so at most about 40.

    Args:
        one: vectors, (pictures, width), unit length.
        other: vectors, (pictures of the other set, width), unit length.

    Source: Jayasumana et al. (arXiv 2401.09603), Eq. 4 and the published code.
    """
    first, second = one.double(), other.double()
    within = _mean_kernel(first, first) + _mean_kernel(second, second)
    return SCALE * float(within - 2 * _mean_kernel(first, second))


def _mean_kernel(one: Tensor, other: Tensor) -> Tensor:
    # Not by matrix products, which would round distances near zero.
    squared = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (-squared / (2 * SIGMA**2)).exp().mean()
