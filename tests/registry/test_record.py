"""A record holds exactly what its file gives back."""

import pytest
import torch

from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.registry.files import decode_record, encode_record
from cns_lightning.registry.record import ConceptRecord


def _record(values: torch.Tensor, mask: NeuronMask | None) -> ConceptRecord:
    return ConceptRecord("<new1>", "cat", "animal", "a <new1> cat", mask, values, [torch.zeros(1, 4)])


MASK = NeuronMask.from_bools(
    {"b": torch.tensor([[False, True]]), "a": torch.tensor([[True, False, False], [False, False, True]])}
)


def test_values_land_on_their_neurons_by_hand() -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.ones(1, 2)}
    _record(torch.tensor([1.0, 2.0, 4.0]).half(), MASK).add_to(weights)
    assert weights["a"].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]
    assert weights["b"].tolist() == [[1.0, 5.0]]


def test_counts() -> None:
    assert _record(torch.zeros(3).half(), MASK).counts == {"neurons": 3, "key_value_weights": 8}
    assert _record(torch.zeros(0), None).counts == {"neurons": 0, "key_value_weights": 0}


def test_a_record_without_neurons_adds_nothing() -> None:
    weights = {"a": torch.ones(2, 2)}
    _record(torch.zeros(0), None).add_to(weights)
    assert torch.equal(weights["a"], torch.ones(2, 2))


def test_factors_add_their_product_and_come_back_from_the_file() -> None:
    generator = torch.Generator().manual_seed(1)
    up, down = torch.randn(2, 2, generator=generator).half(), torch.randn(2, 3, generator=generator).half()
    record = _record(torch.zeros(0).half(), None)
    record.factors["a"] = (up, down)
    again = decode_record(encode_record(record), "file")
    assert again.factors.keys() == {"a"}
    weights = {"a": torch.ones(2, 3), "b": torch.ones(1, 2)}
    again.add_to(weights)
    assert torch.allclose(weights["a"].double(), 1 + up.double() @ down.double(), rtol=0, atol=1e-6)
    assert torch.equal(weights["b"], torch.ones(1, 2))
    assert again.counts == {"neurons": 6, "key_value_weights": 6}
    assert again.trained == 4 + 6 + 4


def test_values_that_would_come_back_changed_are_refused() -> None:
    with pytest.raises(ValueError, match="3 neurons"):
        _record(torch.zeros(2).half(), MASK)
    with pytest.raises(ValueError, match="stored as float16"):
        _record(torch.zeros(3), MASK)


def test_foreign_weights_are_refused_before_anything_is_added() -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.zeros(3, 3)}
    with pytest.raises(ValueError, match="moves b"):
        _record(torch.ones(3).half(), MASK).add_to(weights)
    assert not weights["a"].any()
