"""Whether a base model is whole once it is loaded: libraries fill gaps with random numbers, or leave them empty."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from diffusers import DiffusionPipeline
    from torch import nn

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
AGAIN = "Copy, download or convert the base model again"
# What older files call the layers of the autoencoder's attention, and what transformers puts before a text encoder's.
_RENAMED = (
    (re.compile(r"^text_model\."), ""),
    (re.compile(r"(attentions\.\d+)\.query\."), r"\1.to_q."),
    (re.compile(r"(attentions\.\d+)\.key\."), r"\1.to_k."),
    (re.compile(r"(attentions\.\d+)\.value\."), r"\1.to_v."),
    (re.compile(r"(attentions\.\d+)\.proj_attn\."), r"\1.to_out.0."),
)


def check_sound(pipeline: DiffusionPipeline, where: str, stored: Mapping[str, Iterable[str]] | None = None) -> None:
    """Refuses a pipeline with weights that are missing or not finite.

    Args:
        pipeline: on the CPU.
        where: folder, file or name that it was loaded from, for the message.
        stored: names of the tensors in the files of each part; None where that is not known.

    Raises:
        UserError: naming the part and some of its weights.
    """
    components: dict[str, Any] = pipeline.components
    for name in PARTS:
        part: nn.Module | None = components.get(name)
        if part is None:
            continue
        weights = dict(part.named_parameters())
        empty = [weight for weight, value in weights.items() if value.is_meta]
        if stored is not None and name in stored:
            known = {canonical(each) for each in stored[name]}
            empty += [weight for weight in weights if canonical(weight) not in known and weight not in empty]
        _refuse(where, name, "lacks", empty)
        _refuse(where, name, "holds numbers that are not finite in", _not_finite(weights))


def canonical(weight: str) -> str:
    """Returns the name of a weight as the libraries call it today."""
    for pattern, replacement in _RENAMED:
        weight = pattern.sub(replacement, weight)
    return weight


def _not_finite(weights: Mapping[str, nn.Parameter]) -> list[str]:
    return [name for name, value in weights.items() if not bool(torch.isfinite(value.sum(dtype=torch.float32)))]


def _refuse(where: str, part: str, problem: str, weights: list[str]) -> None:
    if weights:
        listed = ", ".join(canonical(each) for each in weights[:3]) + (
            f" and {len(weights) - 3} more" if len(weights) > 3 else ""
        )
        raise UserError(where, f"{part} {problem} {listed}", AGAIN)
