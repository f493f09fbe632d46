"""A mask is a set of entries: packing loses nothing, and set operations are those of bool tensors."""

import pytest
import torch

from cns_lightning.neurons.mask import NeuronMask


def _bools(seed: int, share: float = 0.4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # 3 x 5 = 15 and 7 x 3 = 21 entries: neither rows nor matrices fill whole bytes.
    shapes = {"b.weight": (3, 5), "a.weight": (7, 3), "c.weight": (4, 8)}
    return {name: torch.rand(shape, generator=generator) < share for name, shape in shapes.items()}


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_mask_by_hand() -> None:
    mask = NeuronMask.from_bools({"w": torch.tensor([[True, False, False], [False, True, True], [False, False, True]])})
    assert mask.indices("w").tolist() == [0, 4, 5, 8]
    assert mask.counts() == {"w": 4}
    assert (mask.count(), mask.total()) == (4, 9)
    # Bits 0, 4 and 5 of the first byte, bit 0 of the second.
    assert mask.to_tensors()["w.bits"].tolist() == [0b110001, 0b1]
    assert mask.to_tensors()["w.shape"].tolist() == [3, 3]


def test_packing_and_unpacking_loses_nothing() -> None:
    bools = _bools(0)
    assert _same(NeuronMask.from_bools(bools).bools(), bools)


def test_matrices_stand_in_the_order_of_their_names() -> None:
    bools = _bools(0)
    mask = NeuronMask.from_bools(bools)
    assert mask.names == ("a.weight", "b.weight", "c.weight")
    assert mask == NeuronMask.from_bools(dict(reversed(list(bools.items()))))


def test_indices_are_the_ascending_flat_places() -> None:
    bools = _bools(1)
    mask = NeuronMask.from_bools(bools)
    for name, matrix in bools.items():
        assert mask.indices(name).dtype == torch.int64
        assert mask.indices(name).tolist() == [place for place, value in enumerate(matrix.flatten().tolist()) if value]


def test_operators_are_those_of_sets() -> None:
    first, second = _bools(2), _bools(3)
    a, b = NeuronMask.from_bools(first), NeuronMask.from_bools(second)
    assert _same((a & b).bools(), {name: first[name] & second[name] for name in first})
    assert _same((a | b).bools(), {name: first[name] | second[name] for name in first})
    assert _same((a - b).bools(), {name: first[name] & ~second[name] for name in first})
    both = sum(int((first[name] & second[name]).sum()) for name in first)
    either = sum(int((first[name] | second[name]).sum()) for name in first)
    assert a.iou(b) == both / either
    assert a.count() == sum(int(matrix.sum()) for matrix in first.values())


def test_equality_sees_one_entry_and_the_names() -> None:
    bools = _bools(4)
    mask = NeuronMask.from_bools(bools)
    assert mask == NeuronMask.from_bools(bools)
    other = {name: matrix.clone() for name, matrix in bools.items()}
    other["b.weight"][2, 4] ^= True
    assert mask != NeuronMask.from_bools(other)
    assert mask != NeuronMask.from_bools({f"{name}x": matrix for name, matrix in bools.items()})
    assert mask != "mask"


def test_empty_masks() -> None:
    empty = NeuronMask.empty({"w": (3, 3)})
    assert empty.count() == 0
    assert empty.iou(empty) == 0.0
    assert empty.indices("w").tolist() == []
    nothing = NeuronMask.from_bools({})
    assert (nothing.names, nothing.total(), nothing.bools()) == ((), 0, {})


def test_tensors_bring_the_mask_back() -> None:
    mask = NeuronMask.from_bools(_bools(5))
    tensors = mask.to_tensors()
    assert NeuronMask.from_tensors(dict(reversed(list(tensors.items())))) == mask
    tensors["b.weight.bits"][0] = 0
    assert mask == NeuronMask.from_bools(_bools(5)), "the tensors are the caller's own"


def test_what_does_not_fit_is_refused() -> None:
    mask = NeuronMask.from_bools(_bools(6))
    with pytest.raises(ValueError, match="different matrices"):
        _ = mask & NeuronMask.from_bools({"a.weight": torch.ones(2, 2, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"mask of w is torch\.float32"):
        NeuronMask.from_bools({"w": torch.ones(2, 2)})
    tensors = mask.to_tensors()
    with pytest.raises(ValueError, match="without a shape"):
        NeuronMask.from_tensors({name: value for name, value in tensors.items() if name != "a.weight.shape"})
    with pytest.raises(ValueError, match="bytes for shape"):
        NeuronMask.from_tensors(tensors | {"a.weight.bits": torch.zeros(2, dtype=torch.uint8)})
