"""Which neurons belong to a concept: base neurons without general neurons.

Functions on tensors, exact and deterministic: the same input gives the same masks on every machine and rank. A selector
of your own is one more function of this kind: scores of shape (rows, columns) in, bool mask of that shape on the same
device out.

    base      the largest share of every row by importance for the concept
    general   base neurons of (nearly) every one of many unrelated prompts
    concept   base and not general
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cns_lightning.neurons.importance import importance_scores, pooled_feature_norms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DENSITY_BAND = (0.050, 0.058)
"""Share of the key and value weights that a concept updates: 5 % of them, 0.13 % of the UNet of Stable Diffusion 1.x.

Source: supplement 9.2; the two figures agree only loosely.
"""

_ROUNDING = 1e-6
"""Slack for products of decimal shares: 0.29 * 100 is 28.999999999999996 and means 29."""


def base_neurons(scores: Tensor, share: float = 0.30) -> Tensor:
    """Marks the largest scores of every row: floor(share * columns) of them, ties by lower column.

    Args:
        scores: shape (rows, columns), any float dtype.
        share: share of a row's entries, from 0 to 1.

    Returns:
        Shape (rows, columns), bool, on the device of ``scores``.

    Raises:
        ValueError: if a score is nan or ``share`` is not a share.

    Source: supplement 8.3 and 9.2 (top 30 % in each row); the floor and the rule for ties are ours.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share is {share}, not within 0 and 1")
    scores = scores.detach()
    kept = math.floor(share * scores.shape[1] + _ROUNDING)
    if kept == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = _kept_minimum(scores, kept)
    mask = scores >= threshold
    surplus = mask.sum(1) - kept
    if (surplus < 0).any():
        raise ValueError("scores hold nan")
    rows = surplus.nonzero().flatten()
    if len(rows):
        tied = scores[rows] == threshold[rows]
        wanted = tied.sum(1) - surplus[rows]
        mask[rows] &= ~(tied & (tied.cumsum(1) > wanted[:, None]))
    return mask


def _kept_minimum(scores: Tensor, kept: int) -> Tensor:
    """Returns the smallest score among the largest ``kept`` of every row, shape (rows, 1)."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        # 2 ms against 61 ms of a stable sort for 1280 x 768: a vote makes one per prompt and matrix.
        position = scores.shape[1] - kept
        return torch.from_numpy(np.partition(scores.numpy(), position, axis=1)[:, position, None])
    return torch.topk(scores, kept, dim=1).values[:, -1:]


def vote_counts(
    weights: Mapping[str, Tensor], prompt_norms: Tensor, share: float = 0.30, device: torch.device | None = None
) -> dict[str, Tensor]:
    """Counts for every neuron how many prompts have it among their base neurons.

    Holds one mask of one matrix at a time.

    Args:
        weights: key and value projections by parameter name, each (rows, columns).
        prompt_norms: feature norms of single prompts, shape (prompts, columns), float32.
        share: share of each row's entries, see `base_neurons`.
        device: where the votes are counted, with the same result; by default where the weights are.

    Returns:
        By name, of the weight's shape and device; uint8 up to 255 prompts, else int32.

    Source: CNS project page (neurons that consistently activate across many unrelated prompts); docs/methods.md 1.6.
    """
    dtype = torch.uint8 if len(prompt_norms) <= 255 else torch.int32
    counts = {}
    for name, weight in weights.items():
        magnitude = weight.detach().to(device or weight.device).float().abs()
        count = torch.zeros(weight.shape, dtype=dtype, device=magnitude.device)
        for norms in prompt_norms:
            count += base_neurons(importance_scores(magnitude, norms), share)
        counts[name] = count.to(weight.device)
    return counts


def general_neurons(counts: Mapping[str, Tensor], prompts: int, threshold: float = 0.75) -> dict[str, Tensor]:
    """Marks the neurons that at least a share of the prompts have among their base neurons.

    Args:
        counts: votes by name, from `vote_counts`.
        prompts: number of prompts that voted.
        threshold: the share, above 0; 1.0 is the strict intersection.

    Returns:
        By name, bool, of the counts' shapes.

    Raises:
        ValueError: if ``threshold`` is not above 0 and at most 1.

    Source: docs/methods.md 1.6 (G-freq, G-int).
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}, not above 0 and at most 1")
    needed = max(1, math.ceil(threshold * prompts - _ROUNDING))
    return {name: count >= needed for name, count in counts.items()}


def mean_general_neurons(weights: Mapping[str, Tensor], prompt_norms: Tensor, share: float = 0.30) -> dict[str, Tensor]:
    """Marks the base neurons of all prompts pooled, the alternative to a vote.

    Args:
        weights: weights by parameter name, each (rows, columns).
        prompt_norms: feature norms of single prompts, shape (prompts, columns).
        share: share of each row's entries, see `base_neurons`.

    Source: docs/methods.md 1.6 (G-mean).
    """
    pooled = pooled_feature_norms(prompt_norms)
    return {name: base_neurons(importance_scores(weight, pooled), share) for name, weight in weights.items()}


def automatic_threshold(
    counts: Mapping[str, Tensor],
    base_masks: Sequence[Mapping[str, Tensor]],
    prompts: int,
    band: tuple[float, float] = DENSITY_BAND,
) -> tuple[float, float]:
    """Chooses the threshold of the vote whose concept neurons are nearest the middle of the wanted density.

    Every threshold that makes a difference is tried: 1/prompts, 2/prompts, ... 1. A higher one leaves more neurons to
    the concepts. Where none reaches the band (prompts or concepts much alike: even the intersection leaves too few;
    prompts unlike the concepts: even a single vote leaves too many) the nearest is taken, and the density says so.

    Args:
        counts: votes by name, from `vote_counts`.
        base_masks: base neurons of one or more concepts, each by name, bool.
        prompts: number of prompts that voted.
        band: lowest and highest density wanted.

    Returns:
        The threshold, and the mean density that it gives over the concepts: concept neurons per entry of all matrices.

    Raises:
        ValueError: without concepts or prompts.
    """
    if not base_masks or prompts < 1:
        raise ValueError("a threshold needs at least one concept and one prompt")
    votes = torch.zeros(prompts + 1, dtype=torch.int64)
    for mask in base_masks:
        for name, count in counts.items():
            votes += torch.bincount(count[mask[name]].cpu().int(), minlength=prompts + 1)
    entries = sum(count.numel() for count in counts.values()) * len(base_masks)
    # Neurons with fewer votes than needed stay with the concept.
    densities = (votes.cumsum(0)[:-1].double() / entries).tolist()
    middle = sum(band) / 2
    needed = min(range(1, prompts + 1), key=lambda number: (abs(densities[number - 1] - middle), -number))
    return needed / prompts, densities[needed - 1]


def concept_neurons(base: Tensor, general: Tensor) -> Tensor:
    """Marks what is important for the concept and not for everything: base and not general, bool.

    Source: supplement 9.2.
    """
    return base & ~general
