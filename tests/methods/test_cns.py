"""The forms of L_reg, checked against numbers done by hand and against automatic differentiation."""

from types import SimpleNamespace

import pytest
import torch

from cns_lightning.errors import UserError
from cns_lightning.methods import quadratic_form
from cns_lightning.methods.cns import (
    ConceptNeuronSelection,
    Regularization,
    anchor_strengths,
    continual_lora_regularization,
    gram,
    plain_two_anchor_regularization,
    prompts_in_context,
    two_anchor_regularization,
)
from cns_lightning.methods.deltas import SparseDelta
from cns_lightning.methods.quadratic_form import QuadraticForm
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.sequences.concept_settings import ConceptSettings

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


@pytest.mark.parametrize(("blocks", "strips"), [(2**30, 2**26), (20_000, 7 * 30 * 4), (0, 2**26), (0, 1)])
def test_function_space_form_is_the_mean_change_of_outputs(
    blocks: int, strips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value and gradient, over two matrices with rows of all lengths, against the change of outputs itself.

    Whether all rows have blocks, some, or none, and however many are multiplied at once.
    """
    monkeypatch.setattr(quadratic_form, "BLOCK_BYTES", blocks)
    monkeypatch.setattr(quadratic_form, "STRIP_BYTES", strips)
    generator = torch.Generator().manual_seed(0)
    states, earlier = torch.randn(2, 7, 30, generator=generator), torch.randn(3, 5, 30, generator=generator)
    chances = torch.rand(40, 1, generator=generator)
    bools = {name: torch.rand(40, 30, generator=generator) < chances for name in ("a", "b")}
    bools["a"][3], bools["b"][5] = True, False
    mask = NeuronMask.from_bools(bools)
    shift = {name: torch.randn(40, 30, generator=generator) for name in mask.names}
    values = torch.randn(mask.count(), generator=generator, requires_grad=True)
    changes, parts = [], values.split([mask.counts()[name] for name in mask.names])
    for name, part in zip(mask.names, parts, strict=True):
        changes.append(torch.zeros(40, 30).masked_scatter(bools[name], part))
    expected = torch.zeros(())
    for name, change in zip(mask.names, changes, strict=True):
        expected = expected + 2 * (states.flatten(0, 1) @ (shift[name] + change).T).square().sum(1).mean()
        expected = expected + 3 * (earlier.flatten(0, 1) @ change.T).square().sum(1).mean()
    form = QuadraticForm(mask, 2 * gram(states), shift, 3 * gram(earlier))
    assert (len(list(form.blocks)) > 0, len(list(form.entries)) > 0) == (blocks > 0, blocks < 2**30)
    assert sum(each.numel() for each in form.blocks) * 4 <= blocks
    found = form(values)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    gradients = [torch.autograd.grad(each, values)[0] for each in (found, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def _balanced(form: Regularization, values: torch.Tensor, **buffers: torch.Tensor) -> ConceptNeuronSelection:
    """Returns a method whose neurons stand at the given values, without a run around it."""
    method = ConceptNeuronSelection(
        regularization=form, regularization_weight=2.0, reference_displacement=0.05, balance_steps=3
    )
    method.delta = SimpleNamespace(values=torch.nn.Parameter(values))  # type: ignore[assignment]
    for name in ("weight", "gradient_sum"):
        method.register_buffer(name, torch.zeros(()))
    for name, buffer in buffers.items():
        method.register_buffer(name, buffer)
    return method


@pytest.mark.parametrize("overlapping", [[False, False, False], [True, True, False]])
def test_the_weight_balances_one_tie_whatever_overlaps(overlapping: list[bool]) -> None:
    strengths = anchor_strengths(torch.tensor(overlapping), 10.0, 1.0)
    method = _balanced("split", torch.tensor([0.02, -0.02, 0.02]), strengths=strengths)
    values = method.delta.values
    for step, gradient in enumerate(([1.0, -3.0, 8.0], [2.0, 4.0, -9.0], [-5.0, 0.0, 6.0], [1e6, 1e6, 1e6])):
        before = method.penalty()
        assert before is not None
        assert (before.item() == 0) == (step < 3)
        values.grad = torch.tensor(gradient)
        method.after_step(step)
    with torch.no_grad():
        values.fill_(0.05)
    values.grad = None
    penalty = method.penalty()
    assert penalty is not None
    penalty.backward()
    # Medians 3, 4 and 5; the fourth step is not measured.
    assert values.grad is not None
    assert torch.allclose(values.grad, 2.0 * 4.0 * torch.where(torch.tensor(overlapping), 10.0, 1.0))


def test_an_emptied_step_does_not_count_in_the_balance() -> None:
    method = _balanced("split", torch.tensor([0.02, -0.02, 0.02]), strengths=torch.ones(3))
    for step, gradient in enumerate(([1.0, -3.0, 8.0], [0.0, 0.0, 0.0], [-5.0, 0.0, 6.0])):
        method.delta.values.grad = torch.tensor(gradient)
        method.after_step(step)
    # Medians 3, once more 3, and 5; the tie's at the reference displacement is 2 times that.
    expected = 11 / 3 / (2 * method.reference_displacement)
    assert method.weight.item() == pytest.approx(method.regularization_weight * expected)


def test_forms_are_balanced_at_their_own_scale() -> None:
    moved, shift = torch.full((4,), 0.01), torch.tensor([0.0, 3.0, -1.0, 2.0])
    for form, expected in (("plain", 2 * 0.05), ("continual_lora", 2 * 0.05 * 4.0)):
        method = _balanced(form, moved, earlier_shift=shift)  # type: ignore[arg-type]
        assert method._reference_gradient().item() == pytest.approx(expected), form
    nothing_moved = _balanced("continual_lora", moved, earlier_shift=torch.zeros(4))
    assert nothing_moved._reference_gradient().item() == 1, "no tie, and no division by nothing"


def test_function_space_is_balanced_along_what_has_moved() -> None:
    """One matrix of two inputs that always fire together: moved alike, they pull the tie twice as hard as one alone."""
    together = torch.ones(2, 2)
    for direction, expected in (([1.0, 1.0], 2 * 2 * 0.05), ([1.0, -1.0], 1.0)):
        method = _balanced("function_space", 0.01 * torch.tensor(direction), general_gram=together)
        mask = NeuronMask.from_bools({"any": torch.ones(1, 2, dtype=torch.bool)})
        delta = SparseDelta({"any": torch.zeros(1, 2)}, mask)
        delta.values.data.copy_(method.delta.values)
        method.delta = delta
        # In the second direction keys and values do not change at all.
        assert method._reference_gradient().item() == pytest.approx(expected)


def test_the_tie_to_earlier_concepts_is_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(2, 7, 5, generator=generator) for _ in range(3)]
    grams = iter([gram(states[0]), gram(states[1]), gram(states[2])])
    method = ConceptNeuronSelection(regularization="function_space", context_prompts=0)
    method._gram_of = lambda *_: next(grams)  # type: ignore[method-assign]
    entry = {"token": "<new1>", "class_word": "cat", "kind": "animal"}
    registry = SimpleNamespace(entries=[SimpleNamespace(sha256="a", **entry), SimpleNamespace(sha256="b", **entry)])
    mask = NeuronMask.from_bools({"any": torch.ones(4, 5, dtype=torch.bool)})
    weights = {"any": torch.zeros(4, 5)}
    context = SimpleNamespace(
        registry=registry, prompts=(("one",), ("two",), ("now",)), calibration_prompts=("any",), mask=mask,
        weights=weights, base_weights=weights, base=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    method._prepare_function_space(context)  # type: ignore[arg-type]
    change = torch.randn(4, 5, generator=generator)
    asked = method.pretrained_strength * gram(states[2])
    asked += method.prior_strength * (gram(states[0]) + gram(states[1])) / 2
    expected = ((change @ asked) * change).sum()
    torch.testing.assert_close(method.tie(change.flatten()), expected, rtol=1e-5, atol=1e-4)
    assert torch.allclose(method.general_gram, gram(states[2]))


def test_kinds_have_rates_of_their_own() -> None:
    method = ConceptNeuronSelection(0.1, 0.01, {"scene": 3.0}, token_learning_rate_factors={"scene": 5.0})
    method.delta = SimpleNamespace(values=torch.nn.Parameter(VALUES))  # type: ignore[assignment]
    method.token = torch.nn.ParameterList()
    for kind, rate, of_token in (("scene", 0.3, 0.05), ("animal", 0.1, 0.01)):
        method.context = SimpleNamespace(concept=SimpleNamespace(kind=kind, settings=ConceptSettings()))  # type: ignore[assignment]
        found = [group.learning_rate for group in method.parameter_groups()]
        assert found == pytest.approx([rate, of_token])
    with pytest.raises(UserError, match="learning_rate_factors: has sceen"):
        ConceptNeuronSelection(learning_rate_factors={"sceen": 3.0})
    with pytest.raises(UserError, match="token_learning_rate_factors: has sceen"):
        ConceptNeuronSelection(token_learning_rate_factors={"sceen": 3.0})


def test_an_earlier_concept_is_protected_beside_other_things() -> None:
    descriptions = ["a very long description of a street", "a tree", "a boat"]
    endings = {"animal": "next to a <a> cat", "scene": "in the <a> cat", "style": "in <a> cat"}
    for kind, ending in endings.items():
        entry = SimpleNamespace(token="<a>", class_word="cat", kind=kind)
        found = prompts_in_context(entry, descriptions, 2)  # type: ignore[arg-type]
        # The shortest, in an order of their own whatever the file's is.
        assert found == [f"a boat {ending}", f"a tree {ending}"]
