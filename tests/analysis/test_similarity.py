"""The rank correlation is that of an independent implementation, ties included."""

import pytest
import torch

from cns_lightning.analysis.queries import Family
from cns_lightning.analysis.similarity import Similarity


def ranks(values: list[float]) -> list[float]:
    """Returns mean ranks, by counting."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def test_spearman_is_the_correlation_of_mean_ranks() -> None:
    family = Family("four", ("a", "b", "c", "d"))
    iou = torch.tensor(
        [[1, 0.8, 0.6, 0.6], [0.8, 1, 0.7, 0.5], [0.6, 0.7, 1, 0.9], [0.6, 0.5, 0.9, 1]], dtype=torch.float64
    )
    words = torch.tensor([[0, 1, 2, 3], [1, 0, 1, 2], [2, 1, 0, 1], [3, 2, 1, 0]])
    matrix = Similarity(family, "base", iou, words)
    assert matrix.pairs() == [(1, 0.8), (2, 0.6), (3, 0.6), (1, 0.7), (2, 0.5), (1, 0.9)]
    first, second = (torch.tensor(ranks(list(each)), dtype=torch.float64) for each in zip(*matrix.pairs(), strict=True))
    expected = float(torch.corrcoef(torch.stack([first, second]))[0, 1])
    assert matrix.spearman == pytest.approx(expected)
    assert matrix.spearman is not None
    assert matrix.spearman < -0.7


def test_pairs_that_all_differ_alike_have_no_rank_correlation() -> None:
    two = Similarity(
        Family("two", ("a", "b")), "base", torch.eye(2, dtype=torch.float64), torch.tensor([[0, 1], [1, 0]])
    )
    assert two.spearman is None
