"""Overlaps counted by hand."""

import pytest
import torch

from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.overlap import (
    joint_iou,
    mean_pairwise_iou,
    pairwise_iou,
    revisited_share,
    updated_share,
)


def _mask(first: list[int], second: list[int]) -> NeuronMask:
    return NeuronMask.from_bools({"a": torch.tensor([first]).bool(), "b": torch.tensor([second]).bool()})


# In a: 1 shared of 3, 0 of 2, 1 of 3; in b: 1 of 1, 0 of 1, 0 of 1.
MASKS = [_mask([1, 1, 0, 0], [1, 0]), _mask([0, 1, 1, 0], [1, 0]), _mask([0, 0, 1, 1], [0, 0])]


def test_pairwise_micro() -> None:
    expected = [[1, 2 / 4, 0], [2 / 4, 1, 1 / 4], [0, 1 / 4, 1]]
    assert pairwise_iou(MASKS).tolist() == [pytest.approx(row) for row in expected]
    assert mean_pairwise_iou(MASKS) == pytest.approx((2 / 4 + 0 + 1 / 4) / 3)
    assert pairwise_iou(MASKS)[0, 1].item() == MASKS[0].iou(MASKS[1])


def test_pairwise_macro_is_the_mean_over_matrices() -> None:
    expected = [(1 / 3 + 1) / 2, 0, (1 / 3 + 0) / 2]
    assert mean_pairwise_iou(MASKS, "macro") == pytest.approx(sum(expected) / 3)


def test_joint() -> None:
    assert joint_iou(MASKS) == 0.0
    assert joint_iou(MASKS[:2]) == 2 / 4
    assert joint_iou(MASKS[:2], "macro") == pytest.approx((1 / 3 + 1) / 2)
    assert joint_iou(MASKS[:1]) == 1.0


def test_nothing_to_compare() -> None:
    assert joint_iou([]) == 0.0
    assert mean_pairwise_iou(MASKS[:1]) == 0.0
    assert pairwise_iou([]).shape == (0, 0)
    empty = _mask([0, 0, 0, 0], [0, 0])
    assert joint_iou([empty, empty]) == 0.0
    assert joint_iou([empty, empty], "macro") == 0.0
    assert revisited_share(empty, MASKS[0]) == 0.0


def test_shares() -> None:
    assert updated_share(MASKS[0]) == 3 / 6
    assert updated_share(MASKS[0], 300) == 0.01
    assert revisited_share(MASKS[1], MASKS[0]) == 2 / 3
