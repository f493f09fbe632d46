"""Small base weights and records of the registry's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry

# Entries that fill no whole bytes: 15, 21 and 33.
SHAPES = {"b.to_k.weight": (3, 5), "a.to_v.weight": (7, 3), "c.to_k.weight": (11, 3)}


@pytest.fixture
def base_weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture
def make_record() -> Callable[..., ConceptRecord]:
    def make(number: int, token: str | None = None, mask: bool = True) -> ConceptRecord:
        generator = torch.Generator().manual_seed(number)
        bools = {name: torch.rand(shape, generator=generator) < 0.5 for name, shape in SHAPES.items()}
        chosen = NeuronMask.from_bools(bools) if mask else None
        values = torch.randn(chosen.count() if chosen else 0, generator=generator).half()
        token = token or f"<new{number}>"
        return ConceptRecord(
            token=token,
            class_word="cat",
            kind="animal",
            prompt=f"a photo of a {token} cat",
            mask=chosen,
            values=values,
            embeddings=[torch.randn(1, 6, generator=generator)],
            metadata={"steps": "5"},
        )

    return make


@pytest.fixture
def registry(tmp_path: Path, make_record: Callable[..., ConceptRecord]) -> NeuronRegistry:
    made = NeuronRegistry.create(tmp_path / "registry", "miniature", "f" * 64, unet_parameters=1000)
    mask = make_record(50).mask
    assert mask is not None
    made.set_general(mask, "model and prompts", {"rule": "vote", "threshold": "0.9"})
    for number in range(4):
        made.add(make_record(number))
    return made
