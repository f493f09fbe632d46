"""What the selection depends on: share, threshold of the vote, calibration prompts, order of the concepts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.diffusion.rare_words import assigned_starts
from cns_lightning.neurons.importance import importance_scores
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.overlap import mean_pairwise_iou, updated_share
from cns_lightning.neurons.selection import base_neurons, general_neurons, vote_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

SHARES = (0.10, 0.20, 0.30, 0.40, 0.50)
THRESHOLDS = (0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80, 0.90, 1.00)
ORDERS = 8
"""Other orders of the concepts that are tried."""
COUNTS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)


def selected(
    weights: Mapping[str, Tensor], concept_norms: Tensor, share: float, general: Mapping[str, Tensor]
) -> list[NeuronMask]:
    """Returns the concept neurons of every concept, from norms of shape (concepts, columns)."""
    return [
        NeuronMask.from_bools(
            {name: base_neurons(importance_scores(weight, norms), share) & ~general[name]
             for name, weight in weights.items()}
        )
        for norms in concept_norms
    ]  # fmt: skip


def _row(changed: str, value: float, masks: Sequence[NeuronMask], **more: float) -> dict[str, Any]:
    density = sum(updated_share(mask) for mask in masks) / len(masks)
    overlap = mean_pairwise_iou(masks) if len(masks) > 1 else None
    return {"changed": changed, "value": value, "density": density, "mean_pairwise": overlap, **more}


def of_shares(
    weights: Mapping[str, Tensor], concept_norms: Tensor, prompt_norms: Tensor, threshold: float
) -> list[dict[str, Any]]:
    """Selects with other shares of each row; a row for every share.

    Args:
        weights: key and value weights by parameter name.
        concept_norms: feature norms of the concepts, shape (concepts, columns).
        prompt_norms: feature norms of the calibration prompts, shape (prompts, columns).
        threshold: threshold of the vote.
    """
    rows = []
    for share in SHARES:
        general = general_neurons(vote_counts(weights, prompt_norms, share), len(prompt_norms), threshold)
        rows.append(_row("share", share, selected(weights, concept_norms, share, general)))
    return rows


def of_thresholds(
    weights: Mapping[str, Tensor], concept_norms: Tensor, votes: Mapping[str, Tensor], prompts: int, share: float
) -> list[dict[str, Any]]:
    """Selects with other thresholds of the vote; a row for every threshold.

    Args:
        weights: key and value weights by parameter name.
        concept_norms: feature norms of the concepts, shape (concepts, columns).
        votes: votes by name, from `vote_counts`.
        prompts: number of prompts that voted.
        share: share of each row.
    """
    rows = []
    for threshold in THRESHOLDS:
        general = general_neurons(votes, prompts, threshold)
        rows.append(_row("threshold", threshold, selected(weights, concept_norms, share, general)))
    return rows


def of_prompts(
    weights: Mapping[str, Tensor], concept_norms: Tensor, prompt_norms: Tensor, threshold: float, share: float
) -> list[dict[str, Any]]:
    """Selects with fewer calibration prompts, the first ones; a row for every number.

    Args:
        weights: key and value weights by parameter name.
        concept_norms: feature norms of the concepts, shape (concepts, columns).
        prompt_norms: feature norms of the calibration prompts, shape (prompts, columns).
        threshold: threshold of the vote.
        share: share of each row.

    Returns:
        Beside density and overlap, ``general_iou`` and ``concept_iou``: the IoU with what all prompts select.
    """
    total = len(prompt_norms)
    counts = [count for count in COUNTS if count < total] + [total]
    votes = {name: torch.zeros(weight.shape, dtype=torch.int32) for name, weight in weights.items()}
    found, start = [], 0
    for count in counts:
        for name, more in vote_counts(weights, prompt_norms[start:count], share).items():
            votes[name] += more
        start = count
        general = general_neurons(votes, count, threshold)
        found.append((count, NeuronMask.from_bools(general), selected(weights, concept_norms, share, general)))
    _, whole, final = found[-1]
    return [
        _row(
            "prompts", count, masks,
            general_iou=general.iou(whole),
            concept_iou=sum(one.iou(two) for one, two in zip(masks, final, strict=True)) / len(masks),
        )
        for count, general, masks in found
    ]  # fmt: skip


def of_halves(
    weights: Mapping[str, Tensor], concept_norms: Tensor, prompt_norms: Tensor, threshold: float, share: float
) -> dict[str, float]:
    """Selects with one half of the calibration prompts and with the other, which share none; arguments as above.

    Returns:
        ``general_iou`` and ``concept_iou`` of the two selections: how much another list of prompts would change.
    """
    middle = len(prompt_norms) // 2
    halves = []
    for norms in (prompt_norms[:middle], prompt_norms[middle:]):
        general = general_neurons(vote_counts(weights, norms, share), len(norms), threshold)
        halves.append((NeuronMask.from_bools(general), selected(weights, concept_norms, share, general)))
    (first, ours), (second, theirs) = halves
    return {
        "general_iou": first.iou(second),
        "concept_iou": sum(one.iou(two) for one, two in zip(ours, theirs, strict=True)) / len(ours),
    }


def of_orders(
    weights: Mapping[str, Tensor],
    concept_norms: Callable[[Mapping[str, str]], Tensor],
    starts: Mapping[str, str],
    words: Sequence[str],
    general: Mapping[str, Tensor],
    share: float,
) -> list[dict[str, Any]]:
    """Selects as if the concepts had been learned in other orders; a row for every order.

    The neurons of a concept depend on the others in one way: each token starts from the first rare word that is left.

    Args:
        weights: key and value weights by parameter name.
        concept_norms: returns feature norms of shape (concepts, columns) from the words that the tokens start from.
        starts: the rare word that every token started from, in learning order.
        words: rare words, best first; at least as many as tokens.
        general: general neurons, bool by parameter name.
        share: share of each row.

    Returns:
        Beside density and overlap, ``concept_iou``: the mean IoU of each concept's neurons with those in its own order.
    """
    tokens, found = list(starts), []
    own = selected(weights, concept_norms(starts), share, general)
    for number in range(1, ORDERS + 1):
        order = random.Random(number).sample(tokens, len(tokens))
        assigned = {token: start[0] for token, start in assigned_starts(order, words, {}).items()}
        masks = selected(weights, concept_norms({token: assigned[token] for token in tokens}), share, general)
        alike = sum(one.iou(two) for one, two in zip(masks, own, strict=True)) / len(masks)
        found.append(_row("order", number, masks, concept_iou=alike))
    return found
