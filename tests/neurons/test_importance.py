"""Scores are weight size times input activity, by hand and against plain loops."""

import math

import pytest
import torch

from cns_lightning.neurons.importance import importance_scores, pooled_feature_norms, text_feature_norms

# Two prompts of two tokens, two features.
STATES = torch.tensor([[[3.0, 0.0], [4.0, 1.0]], [[0.0, 2.0], [0.0, 2.0]]])


def test_norms_by_hand() -> None:
    assert text_feature_norms(STATES).tolist() == [5.0, 3.0]
    assert text_feature_norms(STATES).dtype == torch.float32


def test_only_counted_positions_count() -> None:
    counted = torch.tensor([[True, False], [False, True]])
    assert text_feature_norms(STATES, counted).tolist() == [3.0, 2.0]
    assert text_feature_norms(STATES, torch.zeros(2, 2, dtype=torch.bool)).tolist() == [0.0, 0.0]


def test_an_infinite_state_that_does_not_count_does_no_harm() -> None:
    states = STATES.clone()
    states[0, 0] = math.inf
    counted = torch.tensor([[False, True], [True, True]])
    assert text_feature_norms(states, counted).isfinite().all()


def test_normalized_tokens_have_unit_length() -> None:
    norms = text_feature_norms(STATES, normalize_tokens=True)
    first = math.sqrt(1 + 16 / 17)
    second = math.sqrt(1 / 17 + 1 + 1)
    assert norms.tolist() == pytest.approx([first, second])


def test_half_precision_states_are_summed_in_double_precision() -> None:
    states = torch.full((100, 77, 3), 30.0, dtype=torch.float16)
    assert text_feature_norms(states).tolist() == pytest.approx([30.0 * math.sqrt(7700)] * 3)


def test_pooled_norms_are_the_root_of_the_mean_square() -> None:
    assert pooled_feature_norms(torch.tensor([[1.0, 0.0], [7.0, 2.0]])).tolist() == pytest.approx([5.0, math.sqrt(2)])


def test_scores_equal_plain_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, norms = torch.randn(4, 6, generator=generator), torch.rand(6, generator=generator)
    scores = importance_scores(weight, norms)
    for row in range(4):
        for column in range(6):
            assert scores[row, column] == abs(weight[row, column]) * norms[column]


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5,\) norms for a weight of shape \(4, 6\)"):
        importance_scores(torch.zeros(4, 6), torch.zeros(5))
    with pytest.raises(ValueError, match="prompts, tokens, width"):
        text_feature_norms(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="positions"):
        text_feature_norms(STATES, torch.ones(2, 3, dtype=torch.bool))
