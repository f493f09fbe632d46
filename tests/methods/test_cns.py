"""The forms of L_reg, checked against numbers done by hand and against automatic differentiation."""

import pytest
import torch

from cns_lightning.methods.cns import (
    anchor_strengths,
    continual_lora_regularization,
    function_space_regularization,
    gram,
    plain_two_anchor_regularization,
    two_anchor_regularization,
)

VALUES = torch.tensor([0.5, -1.0, 2.0])
SHIFT = torch.tensor([0.0, 3.0, -1.0])


def test_split_form_by_hand() -> None:
    strengths = anchor_strengths(torch.tensor([False, True, True]), 10.0, 1.0)
    assert strengths.tolist() == [1.0, 10.0, 10.0]
    assert two_anchor_regularization(VALUES, strengths).item() == pytest.approx(1 * 0.25 + 10 * 1 + 10 * 4)


def test_plain_form_by_hand() -> None:
    expected = 10 * (0.25 + 1 + 4) + 1 * (0.25 + 4 + 1)
    assert plain_two_anchor_regularization(VALUES, SHIFT, 10.0, 1.0).item() == pytest.approx(expected)


def test_plain_form_pulls_earlier_concepts_back_to_the_pretrained_weights() -> None:
    values = torch.zeros(3, requires_grad=True)
    plain_two_anchor_regularization(values, SHIFT, 10.0, 1.0).backward()
    # Descending moves against the earlier shift, which is the conflict that the split form avoids.
    assert values.grad is not None
    assert torch.equal(torch.sign(-values.grad), -torch.sign(SHIFT))


def test_split_form_and_plain_form_agree_on_fresh_entries() -> None:
    fresh = torch.zeros(3)
    strengths = torch.full((3,), 11.0)
    plain = plain_two_anchor_regularization(VALUES, fresh, 10.0, 1.0)
    assert two_anchor_regularization(VALUES, strengths).item() == pytest.approx(plain.item())


def test_continual_lora_form_is_free_on_fresh_entries() -> None:
    assert continual_lora_regularization(torch.tensor([5.0, 0.0, 0.0]), SHIFT).item() == 0
    assert continual_lora_regularization(VALUES, SHIFT).item() == pytest.approx(9 + 4)


def test_function_space_form_is_the_mean_change_of_outputs() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(2, 7, 5, generator=generator)
    moved, stood = (torch.randn(4, 5, generator=generator) for _ in range(2))
    change = states.reshape(-1, 5) @ (moved - stood).T
    expected = change.square().sum(1).mean()
    assert function_space_regularization([moved], [stood], gram(states)).item() == pytest.approx(
        expected.item(), rel=1e-5
    )
