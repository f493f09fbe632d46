"""Forgetting of a matrix that was worked out by hand."""

import pytest

from cns_lightning.evaluation.forgetting import backward_transfer, forgetting_from_best, forgetting_from_learned

MATRIX = [[0.5], [0.7, 0.4], [0.3, 0.6, 0.9]]


def test_a_matrix_by_hand() -> None:
    # The first fell from 0.5 (learned) or 0.7 (best) to 0.3, the second rose from 0.4 to 0.6.
    assert forgetting_from_learned(MATRIX) == pytest.approx((0.2 - 0.2) / 2)
    assert forgetting_from_best(MATRIX) == pytest.approx((0.4 - 0.2) / 2)
    assert backward_transfer(MATRIX) == pytest.approx(0.0)


def test_one_concept_cannot_be_forgotten() -> None:
    assert forgetting_from_best([[0.5]]) is None
    assert backward_transfer([[0.5]]) is None
