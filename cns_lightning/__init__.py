"""Continual personalization of text-to-image diffusion by Concept Neuron Selection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cns_lightning.configuration.from_python import continual_trainer
    from cns_lightning.data.module import ConceptDataModule
    from cns_lightning.methods.base import Method
    from cns_lightning.module import ContinualPersonalization
    from cns_lightning.neurons.mask import NeuronMask
    from cns_lightning.pipeline import load_pipeline
    from cns_lightning.registry.registry import NeuronRegistry

__all__ = [
    "ConceptDataModule",
    "ContinualPersonalization",
    "Method",
    "NeuronMask",
    "NeuronRegistry",
    "continual_trainer",
    "load_pipeline",
]

_PLACES = {
    "ConceptDataModule": "cns_lightning.data.module",
    "ContinualPersonalization": "cns_lightning.module",
    "Method": "cns_lightning.methods.base",
    "NeuronMask": "cns_lightning.neurons.mask",
    "NeuronRegistry": "cns_lightning.registry.registry",
    "continual_trainer": "cns_lightning.configuration.from_python",
    "load_pipeline": "cns_lightning.pipeline",
}


def __getattr__(name: str) -> Any:
    # Imported at first use: importing the package must not import torch.
    if name not in _PLACES:
        raise AttributeError(f"module cns_lightning has no attribute {name}")
    return getattr(import_module(_PLACES[name]), name)
