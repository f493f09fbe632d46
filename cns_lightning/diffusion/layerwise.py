"""Tokens with vectors of their own for every cross-attention layer.

A text encoder then reads a prompt once a layer. What it gives for the layers lies side by side, shape (prompts, tokens,
layers x width): stock pipelines pass it on untouched, and every key and value projection takes its own part of it.

Source: Mix-of-Show (arXiv 2305.18292) 3.3.1; docs/methods.md 5.1.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import single_text_encoder
from cns_lightning.diffusion.start_embeddings import random_embedding, word_embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.sequences.sequence import Concept

_ATTRIBUTE = "layerwise_text"


class LayerwiseText:
    """Lets the text encoder and the cross-attention of a model work with layer-wise tokens, until `remove`.

    Every prompt is read for every layer, with layer-wise tokens in it or not: prompts of one batch must have one shape.

    Attributes:
        layers: cross-attention layers, in the order of the forward pass.

    Made by `of`.
    """

    def __init__(self, encoder: nn.Module, unet: nn.Module, vocabulary: int) -> None:
        projections = list(key_value_projections(unet).values())
        self.layers = len(projections) // 2
        self.encoder = encoder
        self._lookup = torch.arange(vocabulary).repeat(self.layers, 1)
        self._hooks = [
            encoder.register_forward_pre_hook(self._read_for_every_layer, with_kwargs=True),
            encoder.register_forward_hook(self._side_by_side),
        ]
        for number, projection in enumerate(projections):
            self._hooks.append(projection.register_forward_pre_hook(partial(self._own_part, number // 2)))
        setattr(encoder, _ATTRIBUTE, self)

    @classmethod
    def of(cls, base: BaseModel) -> LayerwiseText:
        """Returns the one that a base model has, or attaches one.

        Raises:
            UserError: if the base model has several text encoders.
        """
        encoder = single_text_encoder(base)
        return getattr(encoder, _ATTRIBUTE, None) or cls(encoder, base.unet, base.embedding_table(0).num_embeddings)

    def add(self, identifiers: Sequence[int]) -> None:
        """Makes a token layer-wise.

        Args:
            identifiers: token ids of all its vectors, layer by layer; those of the first layer stand in prompts.
        """
        ids = torch.tensor(identifiers).view(self.layers, -1)
        missing = int(ids.max()) + 1 - self._lookup.shape[1]
        if missing > 0:
            more = torch.arange(self._lookup.shape[1], self._lookup.shape[1] + missing, device=self._lookup.device)
            self._lookup = torch.cat([self._lookup, more.repeat(self.layers, 1)], dim=1)
        self._lookup[:, ids[0]] = ids.to(self._lookup)

    def remove(self) -> None:
        """Takes every trace off the model; does nothing when called again."""
        for hook in self._hooks:
            hook.remove()
        if getattr(self.encoder, _ATTRIBUTE, None) is self:
            delattr(self.encoder, _ATTRIBUTE)

    def own_part(self, states: Tensor, layer: int) -> Tensor:
        """Returns what one layer reads of states of all layers, shape (..., width)."""
        return states.unflatten(-1, (self.layers, -1))[..., layer, :]

    def _read_for_every_layer(self, _: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        ids = inputs[0]
        self._lookup = self._lookup.to(ids.device)
        # (layers, prompts, tokens) to (prompts x layers, tokens)
        by_layer = self._lookup[:, ids].transpose(0, 1).flatten(0, 1)
        mask = keywords.get("attention_mask")
        if mask is not None:
            keywords = keywords | {"attention_mask": mask.repeat_interleave(self.layers, 0)}
        return (by_layer, *inputs[1:]), keywords

    def _side_by_side(self, _: nn.Module, __: Any, output: Any) -> Any:
        by_layer = output.last_hidden_state.unflatten(0, (-1, self.layers))
        output.last_hidden_state = by_layer.transpose(1, 2).flatten(2)
        output.pooler_output = output.pooler_output[:: self.layers]
        return output

    def _own_part(self, layer: int, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.own_part(inputs[0], layer), *inputs[1:])


def layerwise_embedding(base: BaseModel, concept: Concept, seed: int) -> list[Tensor]:
    """Returns the start of a concept of two layer-wise vectors: a random one and its class word's, alike in all layers.

    Returns:
        For the only text encoder, shape (layers x 2, width), float32, on the CPU.

    Raises:
        UserError: if nothing is left of the class word when it is read, or there are several text encoders.

    Source: Mix-of-Show's published code; docs/methods.md 5.2.
    """
    single_text_encoder(base)
    layers = len(key_value_projections(base.unet)) // 2
    (instance,) = random_embedding(base, concept.class_word, seed, concept.token)
    (kind,) = word_embedding(base, concept.class_word, concept.token)
    return [torch.cat([instance, kind]).repeat(layers, 1)]
