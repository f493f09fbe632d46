"""Key and value projections are found in forward order, and overriding them leaves no trace."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import WeightOverrides, key_value_projections
from cns_lightning.errors import UserError


def forward(base: BaseModel, states: Tensor) -> Tensor:
    """Denoises fixed latents."""
    latents = torch.randn(2, *base.latent_shape, generator=torch.Generator().manual_seed(3))
    return base.unet(latents, torch.tensor([10, 500]), encoder_hidden_states=states).sample


@pytest.fixture
def states(base: BaseModel) -> Tensor:
    return torch.randn(2, 7, base.text_width, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def others(base: BaseModel) -> dict[str, Tensor]:
    """Returns another weight for every projection."""
    generator = torch.Generator().manual_seed(5)
    projections = key_value_projections(base.unet)
    return {name: torch.randn(each.weight.shape, generator=generator) for name, each in projections.items()}


@pytest.fixture
def overrides(base: BaseModel) -> Iterator[WeightOverrides]:
    made = WeightOverrides(key_value_projections(base.unet))
    yield made
    made.remove()


def dense_gradients(base: BaseModel, states: Tensor, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the gradient of every projection as a plain parameter, of the mean square of what the UNet predicts."""
    projections = key_value_projections(base.unet)
    kept = {name: each.weight.detach().clone() for name, each in projections.items()}
    for name, each in projections.items():
        each.weight.data.copy_(weights[name])
        each.weight.requires_grad_(True)
    forward(base, states).square().mean().backward()
    gradients = {}
    for name, each in projections.items():
        assert each.weight.grad is not None
        gradients[name] = each.weight.grad
        each.weight.grad = None
        each.weight.requires_grad_(False)
        each.weight.data.copy_(kept[name])
    return gradients


def test_names_are_the_parameters_names(base: BaseModel, xl_base: BaseModel) -> None:
    for model in (base, xl_base):
        parameters = dict(model.unet.named_parameters())
        projections = key_value_projections(model.unet)
        assert all(parameters[name] is projection.weight for name, projection in projections.items())
        expected = {name for name in parameters if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))}
        assert set(projections) == expected
    assert len(key_value_projections(xl_base.unet)) == 2 * len(key_value_projections(base.unet))


def test_order_is_that_of_the_forward_pass(base: BaseModel, states: Tensor) -> None:
    called: list[str] = []
    for name, projection in key_value_projections(base.unet).items():
        projection.register_forward_hook(lambda *_, name=name: called.append(name))
    forward(base, states)
    assert called == list(key_value_projections(base.unet))


def test_unet_without_text_is_refused(base: BaseModel) -> None:
    base.unet.register_to_config(cross_attention_dim=999)
    with pytest.raises(UserError, match="no cross-attention"):
        key_value_projections(base.unet)


def test_given_tensors_act_like_written_weights(
    base: BaseModel, states: Tensor, others: dict[str, Tensor], overrides: WeightOverrides
) -> None:
    with torch.no_grad():
        before = forward(base, states)
        overrides.set(others)
        overridden = forward(base, states)
        overrides.clear()
        assert torch.equal(forward(base, states), before)
        for name, projection in key_value_projections(base.unet).items():
            projection.weight.copy_(others[name])
        assert torch.equal(forward(base, states), overridden)
    assert not torch.equal(before, overridden)


def test_unnamed_projections_use_their_weights(
    base: BaseModel, states: Tensor, others: dict[str, Tensor], overrides: WeightOverrides
) -> None:
    first = next(iter(others))
    overrides.set(others)
    overrides.set({first: others[first]})
    with torch.no_grad():
        overridden = forward(base, states)
        overrides.clear()
        key_value_projections(base.unet)[first].weight.copy_(others[first])
        assert torch.equal(forward(base, states), overridden)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_gradients_equal_those_of_dense_parameters(
    base: BaseModel, states: Tensor, others: dict[str, Tensor], overrides: WeightOverrides, is_checkpointed: bool
) -> None:
    expected = dense_gradients(base, states, others)
    calls: list[int] = []
    if is_checkpointed:
        base.unet.enable_gradient_checkpointing()
        next(iter(key_value_projections(base.unet).values())).register_forward_hook(lambda *_: calls.append(1))
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in others.items()}
    # Not leaves themselves: what a method gives is computed from what it trains.
    overrides.set({name: leaf * 1.0 for name, leaf in leaves.items()})
    forward(base, states).square().mean().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert torch.allclose(leaf.grad, expected[name], rtol=1e-4, atol=1e-9), name
    assert len(calls) == (2 if is_checkpointed else 0), "checkpointing computes the forward pass twice"


def test_names_and_state_stay_while_overridden_and_nothing_is_left_after(
    base: BaseModel, others: dict[str, Tensor]
) -> None:
    names = [name for name, _ in base.unet.named_parameters()]
    states = {name: value.clone() for name, value in base.unet.state_dict().items()}
    plain = {id(module): set(vars(module)) for module in base.unet.modules()}
    overrides = WeightOverrides(key_value_projections(base.unet))
    overrides.set(others)
    assert [name for name, _ in base.unet.named_parameters()] == names
    assert list(base.unet.state_dict()) == list(states)
    overrides.remove()
    overrides.remove()
    assert all(torch.equal(value, states[name]) for name, value in base.unet.state_dict().items())
    assert {id(module): set(vars(module)) for module in base.unet.modules()} == plain


def test_first_token_is_detached(base: BaseModel, states: Tensor) -> None:
    name, projection = next(iter(key_value_projections(base.unet).items()))
    weight = torch.randn(projection.weight.shape, generator=torch.Generator().manual_seed(6)).requires_grad_()
    plain = projection(states)
    overrides = WeightOverrides({name: projection}, detach_first_token=True)
    assert torch.equal(projection(states), plain)
    overrides.set({name: weight})
    output = projection(states)
    assert torch.equal(output, nn.functional.linear(states, weight))
    output.sum().backward()
    # Each weight's gradient is the sum of its input over all positions but the first.
    assert weight.grad is not None
    assert torch.allclose(weight.grad, states[:, 1:].sum((0, 1)).expand_as(weight), rtol=1e-5)
    overrides.remove()


def test_half_precision_model_takes_float_tensors(tiny_base_model: object, others: dict[str, Tensor]) -> None:
    base = BaseModel.load(str(tiny_base_model), dtype=torch.bfloat16)
    overrides = WeightOverrides(key_value_projections(base.unet))
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in others.items()}
    overrides.set(leaves)
    latents = torch.randn(1, *base.latent_shape, generator=torch.Generator().manual_seed(3)).bfloat16()
    states = torch.randn(1, 7, base.text_width, generator=torch.Generator().manual_seed(4)).bfloat16()
    base.unet(latents, torch.tensor([10]), encoder_hidden_states=states).sample.float().square().mean().backward()
    assert all(leaf.grad is not None and leaf.grad.dtype == torch.float32 for leaf in leaves.values())


def test_mistakes_are_refused(base: BaseModel, others: dict[str, Tensor], overrides: WeightOverrides) -> None:
    name = next(iter(others))
    with pytest.raises(ValueError, match="no projection is called unknown"):
        overrides.set({"unknown": others[name]})
    with pytest.raises(ValueError, match="needs shape"):
        overrides.set({name: torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="overridden already"):
        WeightOverrides(key_value_projections(base.unet))
