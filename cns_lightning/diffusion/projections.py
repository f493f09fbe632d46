"""All linear projections of attention, for methods that move more than keys and values of the cross-attention.

A projection is known by the name of its weight: in the UNet that of ``unet.named_parameters()``, in a text encoder the
same behind ``text_encoder.``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cns_lightning.diffusion.base_model import BaseModel

TEXT_PREFIX = "text_encoder."
_REMEDY = "Use a pipeline of the base model that the concepts were learned on"


def attention_projections(unet: nn.Module) -> dict[str, nn.Linear]:
    """Finds query, key, value and output projections of every attention of a UNet, in the order of the forward pass.

    Returns:
        ``{name of the weight: projection}``.

    Source: Mix-of-Show's published code, the layers with LoRA; docs/methods.md 5.1.
    """
    from diffusers.models.attention_processor import Attention

    found: dict[str, nn.Linear] = {}
    for part in ("down_blocks", "mid_block", "up_blocks"):
        block = getattr(unet, part, None)
        for name, module in block.named_modules(prefix=part) if block is not None else ():
            if not isinstance(module, Attention):
                continue
            projections: dict[str, Any] = {"to_q": module.to_q, "to_k": module.to_k, "to_v": module.to_v}
            if module.to_out is not None:
                projections["to_out.0"] = module.to_out[0]
            found |= {
                f"{name}.{own}.weight": projection
                for own, projection in projections.items()
                if isinstance(projection, nn.Linear)
            }
    return found


def text_projections(base: BaseModel) -> dict[str, nn.Linear]:
    """Finds the query, key, value and output projections of every attention of the text encoder.

    Returns:
        ``{name of the weight: projection}``.

    Raises:
        UserError: if the base model has several text encoders.
    """
    from transformers.models.clip.modeling_clip import CLIPAttention

    encoder = single_text_encoder(base)
    found: dict[str, nn.Linear] = {}
    for name, module in encoder.named_modules():
        if isinstance(module, CLIPAttention):
            for own in ("q_proj", "k_proj", "v_proj", "out_proj"):
                found[f"{TEXT_PREFIX}{name}.{own}.weight"] = getattr(module, own)
    return found


def single_text_encoder(base: BaseModel) -> nn.Module:
    """Returns the base model's only text encoder.

    Raises:
        UserError: if it has several.
    """
    if len(base.text_encoders) != 1:
        problem = f"has {len(base.text_encoders)} text encoders, this method is made for one"
        raise UserError(f"base model {base.source}", problem, "Use a Stable Diffusion 1.x or 2.x model, or method cns")
    return base.text_encoders[0]


def write_weights(pipe: Any, weights: Mapping[str, Tensor]) -> None:
    """Writes weights into a pipeline or base model, in its precision and on its device.

    Raises:
        UserError: if it has no such parameters; then nothing was written.
    """
    parameters = dict(pipe.unet.named_parameters())
    if any(name.startswith(TEXT_PREFIX) for name in weights):
        encoders = getattr(pipe, "text_encoders", None) or [pipe.text_encoder]
        parameters |= {f"{TEXT_PREFIX}{name}": each for name, each in encoders[0].named_parameters()}
    for name, weight in weights.items():
        found = tuple(parameters[name].shape) if name in parameters else None
        if found != tuple(weight.shape):
            problem = f"its {name} has shape {found}" if found else f"has no {name}"
            raise UserError("pipeline", f"{problem}, shape {tuple(weight.shape)} is needed", _REMEDY)
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def read_weights(projections: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
    """Copies the weights of projections by name, float32, to the CPU."""
    return {name: each.weight.detach().float().cpu().clone() for name, each in projections.items()}
