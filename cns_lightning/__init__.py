"""Continual personalization of text-to-image diffusion by Concept Neuron Selection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cns_lightning.methods.base import Method
    from cns_lightning.neurons.mask import NeuronMask
    from cns_lightning.pipeline import load_pipeline
    from cns_lightning.registry.registry import NeuronRegistry

__all__ = ["Method", "NeuronMask", "NeuronRegistry", "load_pipeline"]

_PLACES = {
    "Method": "cns_lightning.methods.base",
    "NeuronMask": "cns_lightning.neurons.mask",
    "NeuronRegistry": "cns_lightning.registry.registry",
    "load_pipeline": "cns_lightning.pipeline",
}


def __getattr__(name: str) -> Any:
    # Imported at first use: importing the package must not import torch.
    if name not in _PLACES:
        raise AttributeError(f"module cns_lightning has no attribute {name}")
    return getattr(import_module(_PLACES[name]), name)
