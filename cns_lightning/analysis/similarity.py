"""Do queries that share words share neurons? The matrix of the paper's Fig. 7, and whether its claim holds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import torch
from torchmetrics.functional import spearman_corrcoef

from cns_lightning.analysis.queries import words_differing
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.overlap import pairwise_iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from cns_lightning.analysis.queries import Family
    from cns_lightning.neurons.selector import NeuronSelector

Which = Literal["base", "concept"]
"""``base`` neurons, the most important ones for a query; ``concept`` neurons, those of them that are not general."""


@dataclass(frozen=True)
class Similarity:
    """How much the neurons of the queries of a family overlap.

    Attributes:
        family: the queries.
        which: which neurons.
        iou: IoU of every pair, shape (queries, queries), float64.
        words: words by which every pair differs, shape (queries, queries), int64.
    """

    family: Family
    which: Which
    iou: Tensor
    words: Tensor

    def pairs(self) -> list[tuple[int, float]]:
        """Returns, for every pair of different queries, the words by which they differ and their IoU."""
        numbers = range(len(self.family.queries))
        return [(int(self.words[a, b]), float(self.iou[a, b])) for a, b in combinations(numbers, 2)]

    @property
    def spearman(self) -> float | None:
        """Rank correlation over pairs between words that differ and IoU; -1 if fewer words always mean more overlap."""
        return spearman([self])


def spearman(matrices: Sequence[Similarity]) -> float | None:
    """Returns the rank correlation between words that differ and IoU over the pairs of several families.

    None where all pairs differ by as many words, or overlap alike.
    """
    words, ious = zip(*(pair for matrix in matrices for pair in matrix.pairs()), strict=True)
    if len(set(words)) < 2 or len(set(ious)) < 2:
        return None
    return float(spearman_corrcoef(torch.tensor(words, dtype=torch.float64), torch.tensor(ious, dtype=torch.float64)))


def said(correlation: float | None, digits: int = 3) -> str:
    """Returns a rank correlation as text."""
    return "none" if correlation is None else f"{correlation:+.{digits}f}"


def similarity(selector: NeuronSelector, family: Family, general: NeuronMask) -> list[Similarity]:
    """Compares the neurons of the queries of a family.

    Args:
        selector: selects neurons of the base model.
        family: the queries.
        general: general neurons of the same model.

    Returns:
        The matrix of base neurons, and that of concept neurons; the paper does not say which it shows.

    Source: supplement 9.1, Fig. 7.
    """
    base = [NeuronMask.from_bools(selector.base_neurons([query])) for query in family.queries]
    words = torch.tensor([[words_differing(one, two) for two in family.queries] for one in family.queries])
    return [
        Similarity(family, "base", pairwise_iou(base), words),
        Similarity(family, "concept", pairwise_iou([mask - general for mask in base]), words),
    ]
