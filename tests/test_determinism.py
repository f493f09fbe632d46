"""Draws depend on their key alone."""

import pytest
import torch

from cns_lightning.determinism import integer, noise_for, normal, timestep_for, uniform


def test_same_key_same_draw_another_key_another() -> None:
    assert torch.equal(normal((4,), 1, "a", 2), normal((4,), 1, "a", 2))
    for other in (normal((4,), 2, "a", 2), normal((4,), 1, "b", 2), normal((4,), 1, "a", 3)):
        assert not torch.equal(normal((4,), 1, "a", 2), other)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    noise_for((2, 2), 0, 0, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_ranges() -> None:
    assert {integer(3, 0, number) for number in range(50)} == {0, 1, 2}
    assert all(0 <= uniform(0, number) < 1 for number in range(50))
    assert all(0 <= timestep_for(10, 1.0, 0, step) < 10 for step in range(50))


@pytest.mark.parametrize(("power", "mean"), [(1.0, 1 / 2), (2.0, 2 / 3), (3.0, 3 / 4)])
def test_a_power_draws_noisy_timesteps_more_often(power: float, mean: float) -> None:
    drawn = torch.tensor([timestep_for(1000, power, 0, step) for step in range(2000)]).double()
    assert drawn.min() >= 0
    assert drawn.max() < 1000
    # The mean of 1 - u^p is p / (p + 1); three standard errors of 2,000 draws are at most 0.02.
    assert drawn.mean().item() / 1000 == pytest.approx(mean, abs=0.02)


def test_drawn_on_the_processor_whatever_the_default_device() -> None:
    with torch.device("meta"):
        assert torch.equal(normal((4,), 1, "a", 2), normal((4,), 1, "a", 2))
        assert (uniform(0, 1), integer(9, 0, 1)) == (uniform(0, 1), integer(9, 0, 1))
