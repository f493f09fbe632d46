"""The key and value projections of the UNet's cross-attention: which they are, and how to give them other weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping


def key_value_projections(unet: nn.Module) -> dict[str, nn.Linear]:
    """Finds the projections that read text states, by the name of their weight, in the order of the forward pass.

    They are found by structure: attention modules that take another input than the picture, whose key projection is as
    wide as the text states. The order is down, mid, up; ``named_modules`` would give down, up, mid.

    Returns:
        ``{name: projection}``; the name is that of the weight in ``unet.named_parameters()``, key before value.

    Raises:
        UserError: if the UNet has none.

    Source: docs/methods.md 1.3.
    """
    from diffusers.models.attention_processor import Attention

    width = cast("Any", unet).config["cross_attention_dim"]
    found: dict[str, nn.Linear] = {}
    for part in ("down_blocks", "mid_block", "up_blocks"):
        block = getattr(unet, part, None)
        if block is None:
            continue
        for name, module in block.named_modules(prefix=part):
            if not isinstance(module, Attention) or not module.is_cross_attention:
                continue
            key, value = module.to_k, module.to_v
            if isinstance(key, nn.Linear) and isinstance(value, nn.Linear) and key.in_features == width:
                found |= {f"{name}.to_k.weight": key, f"{name}.to_v.weight": value}
    if not found:
        raise UserError("base model", "its UNet has no cross-attention", "Give a text-to-image base model")
    return found


class WeightOverrides:
    """Lets projections compute with given tensors in place of their weights.

    Parameters, their names and the state dict stay as they are; only the ``forward`` of each projection is shadowed,
    until `remove`. A given tensor stays in use until the next `set` or `clear`: gradient checkpointing computes the
    forward pass again during the backward pass, and must find the same tensors.

    Args:
        projections: projections by name, from `key_value_projections`.
        detach_first_token: let no gradient pass through keys and values of the first text position, overridden or not.
    """

    def __init__(self, projections: Mapping[str, nn.Linear], detach_first_token: bool = False) -> None:
        self.projections = dict(projections)
        self.tensors: dict[str, Tensor] = {}
        for name, projection in self.projections.items():
            if "forward" in vars(projection):
                raise ValueError(f"{name} is overridden already")
            # The same code for every projection, without its name: compiled, blocks of one shape share what is made.
            vars(projection).update(override=None, forward=partial(_project, projection, detach_first_token))

    def set(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts tensors in place; those that were there before go, projections that are not named use their weights.

        Args:
            tensors: by name, each of its weight's shape; cast to the precision of the projection. Gradients flow back.

        Raises:
            ValueError: if a name is unknown or a shape differs.
        """
        for name, tensor in tensors.items():
            if name not in self.projections:
                raise ValueError(f"no projection is called {name}")
            if tensor.shape != self.projections[name].weight.shape:
                raise ValueError(f"{name} needs shape {tuple(self.projections[name].weight.shape)}")
        self.tensors = dict(tensors)
        for name, projection in self.projections.items():
            vars(projection)["override"] = self.tensors.get(name)

    def clear(self) -> None:
        """Lets every projection use its own weight again."""
        self.set({})

    def remove(self) -> None:
        """Takes every trace off the projections; does nothing when called again."""
        self.clear()
        for projection in self.projections.values():
            for name in ("forward", "override"):
                vars(projection).pop(name, None)
        self.projections = {}


def _project(projection: Any, detaches_first_token: bool, states: Tensor) -> Tensor:
    weight = projection.weight if projection.override is None else projection.override
    projected = functional.linear(states, weight.to(projection.weight.dtype), projection.bias)
    if detaches_first_token and torch.is_grad_enabled():
        return torch.cat([projected[:, :1].detach(), projected[:, 1:]], dim=1)
    return projected
