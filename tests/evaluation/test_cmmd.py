"""CMMD against a sum over all pairs, and as the distance it is."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from cns_lightning.evaluation.cmmd import cmmd


def unit(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    drawn = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    drawn[:, 0] += shift
    return normalize(drawn, dim=-1)


def _kernels(one: torch.Tensor, other: torch.Tensor) -> float:
    pairs = [(a, b) for a in one.tolist() for b in other.tolist()]
    squared = [sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for a, b in pairs]
    return sum(math.exp(-each / 200) for each in squared) / len(pairs)


def test_it_is_the_sum_over_all_pairs() -> None:
    one, other = unit(5, 0), unit(7, 1, shift=1.0)
    expected = 1000 * (_kernels(one, one) + _kernels(other, other) - 2 * _kernels(one, other))
    assert expected > 0.1
    assert cmmd(one, other) == pytest.approx(expected, rel=1e-9)


def test_equal_sets_are_at_zero_and_others_as_far_from_either_side() -> None:
    one, other = unit(6, 2), unit(6, 3)
    assert cmmd(one, one.flip(0)) == pytest.approx(0.0, abs=1e-9)
    assert cmmd(one, other) == pytest.approx(cmmd(other, one), abs=1e-12)


def test_it_grows_with_the_shift_up_to_opposite_directions() -> None:
    one = unit(40, 4)
    found = [cmmd(one, unit(40, 5, shift)) for shift in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert found == sorted(found)
    # Single vectors, one opposite the other: 2 - 2 exp(-4 / 200).
    assert cmmd(one[:1], -one[:1]) == pytest.approx(2000 * (1 - math.exp(-0.02)))
