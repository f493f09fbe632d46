"""Masks equal those of an independent re-computation in plain Python, ties and odd sizes included."""

import math
from fractions import Fraction

import pytest
import torch

from cns_lightning.neurons.importance import importance_scores
from cns_lightning.neurons.selection import (
    automatic_threshold,
    base_neurons,
    concept_neurons,
    general_neurons,
    mean_general_neurons,
    vote_counts,
)


def _largest(row: list[float], share: str) -> set[int]:
    """The definition, a row at a time: sorted by falling score, then by column."""
    kept = math.floor(Fraction(share) * len(row))
    return set(sorted(range(len(row)), key=lambda column: (-row[column], column))[:kept])


def _plain_base(scores: torch.Tensor, share: str = "0.30") -> list[set[int]]:
    return [_largest(row, share) for row in scores.tolist()]


def _columns(mask: torch.Tensor) -> list[set[int]]:
    return [{column for column, value in enumerate(row) if value} for row in mask.tolist()]


def test_base_neurons_by_hand() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.9, 0.2, 0.9, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    # floor(0.30 * 7) = 2; of equal scores the first columns win.
    assert _columns(base_neurons(scores)) == [{1, 3}, {0, 1}]


@pytest.mark.parametrize("columns", [1, 3, 10, 64, 77])
@pytest.mark.parametrize("share", ["0.30", "0.29", "0.05", "0", "1"])
def test_base_neurons_equal_the_definition(columns: int, share: str) -> None:
    generator = torch.Generator().manual_seed(columns)
    scores = torch.rand(20, columns, generator=generator)
    assert _columns(base_neurons(scores, float(share))) == _plain_base(scores, share)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ties_go_to_the_lower_column(dtype: torch.dtype) -> None:
    # Five values in forty columns: every row has ties at the border.
    scores = torch.randint(0, 5, (50, 40), generator=torch.Generator().manual_seed(3)).to(dtype)
    assert _columns(base_neurons(scores)) == _plain_base(scores)


def test_a_share_that_a_float_misses_is_met() -> None:
    assert 0.29 * 100 < 29
    assert base_neurons(torch.rand(1, 100), 0.29).sum() == 29


def test_scores_that_are_no_numbers_are_refused() -> None:
    scores = torch.rand(3, 10)
    scores[1, 4] = math.nan
    with pytest.raises(ValueError, match="nan"):
        base_neurons(scores)
    with pytest.raises(ValueError, match="share"):
        base_neurons(torch.rand(2, 2), 1.5)


def _example(prompts: int = 12) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    weights = {"a": torch.randn(6, 20, generator=generator), "b": torch.randn(9, 20, generator=generator)}
    return weights, torch.rand(prompts, 20, generator=generator) + 0.5


def test_votes_equal_a_count_by_hand() -> None:
    weights, norms = _example()
    counts = vote_counts(weights, norms)
    for name, weight in weights.items():
        expected = torch.zeros(weight.shape, dtype=torch.int64)
        for prompt in norms:
            for row, columns in enumerate(_plain_base(importance_scores(weight, prompt))):
                for column in columns:
                    expected[row, column] += 1
        assert counts[name].dtype == torch.uint8
        assert torch.equal(counts[name].long(), expected)


def test_more_prompts_than_a_byte_counts() -> None:
    weights, norms = _example(1)
    counts = vote_counts(weights, norms.expand(300, -1))
    assert counts["a"].max() == 300


def test_general_neurons_need_the_threshold() -> None:
    counts = {"w": torch.tensor([[0, 1, 2, 3, 4]], dtype=torch.uint8)}
    assert general_neurons(counts, 4, 0.75)["w"].tolist() == [[False, False, False, True, True]]
    assert general_neurons(counts, 4, 1.0)["w"].tolist() == [[False, False, False, False, True]]
    assert general_neurons(counts, 4, 0.51)["w"].tolist() == [[False, False, False, True, True]]
    for threshold in (0.0, 1.1):
        with pytest.raises(ValueError, match="threshold"):
            general_neurons(counts, 4, threshold)


@pytest.mark.parametrize("prompts", [3, 7, 9, 100])
def test_every_vote_count_can_be_asked_for_exactly(prompts: int) -> None:
    counts = {"w": torch.arange(prompts + 1, dtype=torch.int32)[None]}
    for needed in range(1, prompts + 1):
        assert general_neurons(counts, prompts, needed / prompts)["w"].sum() == prompts + 1 - needed


def test_the_mean_rule_pools_the_norms() -> None:
    weights, norms = _example()
    pooled = norms.square().mean(0).sqrt()
    general = mean_general_neurons(weights, norms)
    for name, weight in weights.items():
        assert _columns(general[name]) == _plain_base(weight.abs() * pooled)


def test_the_automatic_threshold_gives_the_density_it_says() -> None:
    weights, norms = _example(40)
    counts = vote_counts(weights, norms)
    generator = torch.Generator().manual_seed(9)
    concepts = [torch.rand(20, generator=generator) + 0.2 for _ in range(3)]
    bases = [
        {name: base_neurons(importance_scores(weight, concept)) for name, weight in weights.items()}
        for concept in concepts
    ]
    threshold, density = automatic_threshold(counts, bases, 40)

    def density_at(needed: int) -> float:
        general = general_neurons(counts, 40, needed / 40)
        kept = sum(int(concept_neurons(base[name], general[name]).sum()) for base in bases for name in base)
        return kept / (3 * sum(weight.numel() for weight in weights.values()))

    assert density == pytest.approx(density_at(round(threshold * 40)))
    assert abs(density - 0.054) == pytest.approx(min(abs(density_at(needed) - 0.054) for needed in range(1, 41)))


def test_the_nearest_threshold_is_taken_where_none_reaches_the_band() -> None:
    base = [{"w": torch.tensor([[True, True, True] + [False] * 7])}]
    alike = {"w": torch.tensor([[9, 9, 9] + [0] * 7], dtype=torch.uint8)}
    assert automatic_threshold(alike, base, 9) == (1.0, 0.0), "every prompt agrees: even the intersection takes all"
    unlike = {"w": torch.tensor([[0, 0, 0] + [9] * 7], dtype=torch.uint8)}
    threshold, density = automatic_threshold(unlike, base, 9)
    assert (threshold, density) == (1.0, pytest.approx(0.3)), "no prompt agrees: no threshold matters"
    with pytest.raises(ValueError, match="at least one concept"):
        automatic_threshold(alike, [], 9)


def test_concept_neurons_are_base_and_not_general() -> None:
    base, general = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    assert concept_neurons(base, general).tolist() == [False, True, False, False]
