"""A sparse delta moves the masked entries, these alone, by one vector."""

import torch

from cns_lightning.methods.deltas import DenseDelta, SparseDelta, gather_masked
from cns_lightning.neurons.mask import NeuronMask


def _example() -> tuple[dict[str, torch.Tensor], NeuronMask]:
    generator = torch.Generator().manual_seed(3)
    weights = {
        "first.weight": torch.randn(4, 5, generator=generator),
        "second.weight": torch.randn(3, 5, generator=generator),
    }
    mask = {name: torch.rand(weight.shape, generator=generator) < 0.4 for name, weight in weights.items()}
    return weights, NeuronMask.from_bools(mask)


def test_entries_outside_the_mask_are_bit_identical() -> None:
    weights, mask = _example()
    delta = SparseDelta(weights, mask)
    with torch.no_grad():
        delta.values.normal_(generator=torch.Generator().manual_seed(5))
    for name, moved in delta.weights().items():
        inside = mask.bools()[name]
        assert torch.equal(moved[~inside], weights[name][~inside])
        assert (moved[inside] != weights[name][inside]).all()


def test_gradient_equals_that_of_a_dense_matrix() -> None:
    weights, mask = _example()
    inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(7))
    delta = SparseDelta(weights, mask)
    sum((inputs @ weight.T).square().sum() for weight in delta.weights().values()).backward()  # type: ignore[union-attr]
    dense = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    sum((inputs @ weight.T).square().sum() for weight in dense.values()).backward()  # type: ignore[union-attr]
    expected = gather_masked({name: weight.grad for name, weight in dense.items()}, mask)  # type: ignore[misc]
    assert torch.allclose(delta.values.grad, expected, rtol=1e-5)  # type: ignore[arg-type]


def test_zero_values_give_the_weights_themselves() -> None:
    weights, mask = _example()
    for name, weight in SparseDelta(weights, mask).weights().items():
        assert torch.equal(weight, weights[name])


def test_a_dense_delta_is_a_sparse_one_on_everything() -> None:
    weights, _ = _example()
    everything = NeuronMask.from_bools(
        {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in weights.items()}
    )
    dense, sparse = DenseDelta(weights), SparseDelta(weights, everything)
    values = torch.randn(dense.values.shape, generator=torch.Generator().manual_seed(5))
    inputs, gradients = torch.randn(6, 5, generator=torch.Generator().manual_seed(7)), []
    for delta in (dense, sparse):
        with torch.no_grad():
            delta.values.copy_(values)
        moved = delta.weights()
        assert list(moved) == sorted(weights)
        sum((inputs @ weight.T).square().sum() for weight in moved.values()).backward()  # type: ignore[union-attr]
        gradients.append(delta.values.grad)
    assert torch.equal(*gradients)
    assert all(torch.equal(dense.weights()[name], weight) for name, weight in sparse.weights().items())
    assert dict(dense.state_dict()).keys() == {"values"}
