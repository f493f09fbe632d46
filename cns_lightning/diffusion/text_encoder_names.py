"""Text encoders written by a newer transformers than the one installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PREFIX = "text_model."
SINCE = "5.6"
"""The version of transformers from which on the names of a text encoder's weights lack the prefix."""
_BESIDE = ("text_projection.",)
"""Beginnings of the names that never had it."""


def text_encoder_of_newer_names(class_name: str, folder: Path, files: Sequence[Path]) -> Any:
    """Opens a text encoder that the installed transformers would fill with random numbers, without a word.

    Newer versions read both spellings of the names, older ones their own alone.

    Args:
        class_name: class name of transformers.
        folder: folder of the text encoder, which holds its ``config.json``.
        files: its safetensors files.

    Returns:
        The text encoder; None where transformers reads the files by itself.
    """
    import torch
    import transformers
    from packaging.version import Version
    from safetensors.torch import load_file

    if Version(transformers.__version__) >= Version(SINCE):
        return None
    tensors = {name: tensor for path in files for name, tensor in load_file(path).items()}
    if not tensors or any(name.startswith(PREFIX) for name in tensors):
        return None
    family = getattr(transformers, class_name)
    with torch.random.fork_rng(devices=[]):
        encoder = family(family.config_class.from_pretrained(folder))
    # What is missing keeps its random numbers here, and is refused by name when the model is checked.
    named = {name if name.startswith(_BESIDE) else PREFIX + name: tensor for name, tensor in tensors.items()}
    encoder.load_state_dict(named, strict=False)
    return encoder.eval()
