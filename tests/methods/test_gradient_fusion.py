"""Gradient fusion against a solver of the whole least-squares problem."""

import pytest
import torch
from torch import Tensor

from cns_lightning.methods.gradient_fusion import GramFusion, IterativeFusion, LayerFusion


def _problem(places: int, concepts: int = 3) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    draw = torch.Generator().manual_seed(places)
    weight = torch.randn(5, 8, generator=draw)
    deltas = [torch.randn(5, 8, generator=draw) * 0.1 for _ in range(concepts)]
    return weight, deltas, [torch.randn(places, 8, generator=draw) for _ in range(concepts)]


def _solved(fusion: LayerFusion, deltas: list[Tensor], inputs: list[Tensor]) -> Tensor:
    for each, delta in zip(inputs, deltas, strict=True):
        # In parts: what a layer reads comes step by step.
        fusion.add(each[:2], delta)
        fusion.add(each[2:], delta)
    return fusion.solve()


def _least_squares(weight: Tensor, deltas: list[Tensor], inputs: list[Tensor], mu: float = 0.0) -> Tensor:
    """Returns the solution of least change, by a solver that sees all rows at once; mu penalizes the change."""
    targets = torch.cat([each @ delta.T for each, delta in zip(inputs, deltas, strict=True)]).double()
    rows, columns = torch.cat(inputs).double(), weight.shape[1]
    rows = torch.cat([rows, mu**0.5 * torch.eye(columns, dtype=torch.float64)])
    targets = torch.cat([targets, torch.zeros(columns, targets.shape[1], dtype=torch.float64)])
    return weight + torch.linalg.lstsq(rows, targets, driver="gelsd").solution.T.float()


@pytest.mark.parametrize("places", [2, 20])
def test_both_ways_find_the_minimum(places: int) -> None:
    weight, deltas, inputs = _problem(places)
    expected = _least_squares(weight, deltas, inputs)
    for fusion in (GramFusion(weight, ridge=1e-7), IterativeFusion(weight, 500)):
        torch.testing.assert_close(_solved(fusion, deltas, inputs), expected, rtol=1e-4, atol=1e-5)


def test_the_ridge_is_a_penalty_on_the_change() -> None:
    weight, deltas, inputs = _problem(4)
    squares = torch.cat(inputs).square().sum(0).mean()
    expected = _least_squares(weight, deltas, inputs, mu=0.01 * float(squares))
    found = _solved(GramFusion(weight, ridge=0.01), deltas, inputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert float((found - weight).norm()) < float((_solved(GramFusion(weight, 1e-7), deltas, inputs) - weight).norm())


def test_one_concept_gives_its_own_weight_where_inputs_determine_it() -> None:
    weight, deltas, inputs = _problem(20, concepts=1)
    torch.testing.assert_close(
        _solved(GramFusion(weight, 1e-7), deltas, inputs), weight + deltas[0], rtol=1e-4, atol=1e-5
    )


def test_a_layer_that_read_nothing_but_zeros_stays() -> None:
    weight, deltas, _ = _problem(4, concepts=1)
    assert torch.equal(_solved(GramFusion(weight), deltas, [torch.zeros(4, 8)]), weight)
