"""The picture processors of transformers that work with Pillow: the same pixels with and without torchvision."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def pillow_processor(family: str) -> Any:
    """Returns the class of a family's picture processor.

    Args:
        family: ``clip`` or ``bit``.
    """
    package = f"transformers.models.{family}"
    name = f"{'CLIP' if family == 'clip' else family.title()}ImageProcessor"
    try:
        return getattr(import_module(f"{package}.image_processing_pil_{family}"), f"{name}Pil")
    except ModuleNotFoundError:  # transformers before it had that name for it
        return getattr(import_module(f"{package}.image_processing_{family}"), name)
