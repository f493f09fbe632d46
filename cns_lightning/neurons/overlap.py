"""How much the neurons of several concepts have in common."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from cns_lightning.neurons.mask import NeuronMask

PAPER = {"key_value_share": 0.05, "unet_share": 0.0013, "mean_pairwise": 0.24, "joint": 0.02}
"""What the supplement of CNS (arXiv 2510.02296) reports of Stable Diffusion in 9.2 and 9.3."""
Average = Literal["micro", "macro"]
"""``micro`` pools all matrices; ``macro`` is the mean over matrices, those without any neuron left out."""


def pairwise_iou(masks: Sequence[NeuronMask], average: Average = "micro") -> Tensor:
    """Returns the IoU of every pair of masks, shape (masks, masks), float64, ones on the diagonal.

    An empty mask has an IoU of 0 with every other.

    Source: supplement 9.3; micro and macro are ours.
    """
    counts = [mask.counts() for mask in masks]
    table = torch.eye(len(masks), dtype=torch.float64)
    for row in range(len(masks)):
        for column in range(row):
            both = (masks[row] & masks[column]).counts()
            either = {name: counts[row][name] + counts[column][name] - both[name] for name in both}
            table[row, column] = table[column, row] = _iou(both, either, average)
    return table


def mean_pairwise_iou(masks: Sequence[NeuronMask], average: Average = "micro") -> float:
    """Returns the mean IoU over all pairs of different masks; 0 for fewer than two."""
    pairs = pairwise_iou(masks, average).tril(-1).sum().item()
    number = len(masks) * (len(masks) - 1) // 2
    return pairs / number if number else 0.0


def joint_iou(masks: Sequence[NeuronMask], average: Average = "micro") -> float:
    """Returns |in all| / |in any| over all masks at once; 1 for a single mask with neurons, 0 for none.

    Source: supplement 9.3.
    """
    if not masks:
        return 0.0
    both = reduce(lambda first, second: first & second, masks).counts()
    either = reduce(lambda first, second: first | second, masks).counts()
    return _iou(both, either, average)


def _iou(both: dict[str, int], either: dict[str, int], average: Average) -> float:
    if average == "micro":
        total = sum(either.values())
        return sum(both.values()) / total if total else 0.0
    shares = [both[name] / either[name] for name in both if either[name]]
    return sum(shares) / len(shares) if shares else 0.0


def updated_share(mask: NeuronMask, parameters: int | None = None) -> float:
    """Returns the share of parameters in a mask.

    Args:
        mask: mask of key and value matrices.
        parameters: what to count against, for example those of the UNet; all entries of the mask's matrices if None.

    Source: supplement 9.2 (about 5 % of key and value weights, 0.13 % of all parameters).
    """
    total = mask.total() if parameters is None else parameters
    return mask.count() / total if total else 0.0


def revisited_share(mask: NeuronMask, earlier: NeuronMask) -> float:
    """Returns the share of a mask's neurons that are in another one too; 0 for an empty mask."""
    count = mask.count()
    return (mask & earlier).count() / count if count else 0.0


def overlap_of(masks: Mapping[str, NeuronMask]) -> dict[str, Any]:
    """Returns how much the neurons of several concepts have in common.

    Args:
        masks: masks by token.

    Returns:
        ``tokens``; ``pairwise``, a table of IoUs in their order; ``mean_pairwise``; ``joint``, the IoU of all at once;
        and the last two once more as mean over matrices, with the ending ``_macro``.

    Source: supplement 9.3.
    """
    listed = list(masks.values())
    return {
        "tokens": list(masks),
        "pairwise": pairwise_iou(listed).tolist(),
        "mean_pairwise": mean_pairwise_iou(listed),
        "joint": joint_iou(listed),
        "mean_pairwise_macro": mean_pairwise_iou(listed, "macro"),
        "joint_macro": joint_iou(listed, "macro"),
    }
