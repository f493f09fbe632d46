"""Which of several candidates is kept."""

import pytest
import torch

from cns_lightning.evaluation.best_step import Candidate, best_candidate, mean_likeness


def test_the_most_like_of_those_that_hold_is_kept() -> None:
    start = (0.8, 0.7)
    candidates = [
        Candidate(100, 0.60, (0.80, 0.70)),
        Candidate(200, 0.70, (0.79, 0.69)),
        Candidate(300, 0.90, (0.80, 0.60)),  # loses the second
    ]
    assert best_candidate(candidates, start, 0.02).step == 200
    assert best_candidate(candidates, start, 0.0).step == 100
    assert best_candidate(candidates, start, 0.1001).step == 300
    assert best_candidate(candidates, (0.9, 0.9), 0.02).step == 300, "the last where none holds"


def test_the_earliest_of_equal_ones_and_no_earlier_concepts() -> None:
    candidates = [Candidate(1, 0.5, ()), Candidate(2, 0.7, ()), Candidate(3, 0.7, ())]
    assert best_candidate(candidates, (), 0.0).step == 2
    with pytest.raises(ValueError, match="longer"):
        best_candidate(candidates, (0.5,), 0.0)


def test_likeness_is_the_mean_cosine_of_all_pairs() -> None:
    pictures, photos = torch.eye(3)[:2], torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8], [1.0, 0.0, 0.0]])
    assert mean_likeness(pictures, photos) == pytest.approx((0.6 + 0.8 + 0.0 + 0.6 + 1.0 + 0.0) / 6)
