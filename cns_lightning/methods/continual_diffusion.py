"""Continual Diffusion (C-LoRA): one low-rank delta after another on keys and values, kept off what earlier ones moved.

Source: arXiv 2304.06027; docs/methods.md 7 says what is certain and what is our reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cns_lightning.diffusion.start_embeddings import random_embedding
from cns_lightning.methods.base import Method, ParameterGroup, StageContext
from cns_lightning.methods.deltas import BufferList, LowRankDelta
from cns_lightning.ranges import Count, NonNegative

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.registry.record import ConceptRecord
    from cns_lightning.sequences.sequence import Concept


def self_regularization(earlier: Sequence[Tensor], products: Sequence[Tensor]) -> Tensor:
    """Penalizes moving an entry by how far earlier concepts moved it; zero where they moved nothing.

    Args:
        earlier: sum of the earlier concepts' products, a matrix each.
        products: products of the running stage, same shapes.

    Source: arXiv 2304.06027, L_forget; docs/methods.md 7.
    """
    total = products[0].new_zeros(())
    for before, now in zip(earlier, products, strict=True):
        total = total + (before.abs() * now).square().sum()
    return total


class ContinualDiffusion(Method):
    """Trains a low-rank delta of all key and value weights and a token that starts at random; folds it in at the end.

    Prompts name the token without a class word.

    Args:
        learning_rate: learning rate of the factors.
        token_learning_rate: learning rate of the concept's token embedding.
        rank: rank of the delta of each matrix.
        regularization_weight: factor on the self-regularization, a sum over all entries.
    """

    display_name = "Continual Diffusion (C-LoRA)"

    names_class_word = False

    def __init__(
        self,
        learning_rate: NonNegative = 5e-4,
        token_learning_rate: NonNegative = 5e-4,
        rank: Count = 16,
        regularization_weight: NonNegative = 1e8,
    ) -> None:
        super().__init__()
        self.learning_rate, self.token_learning_rate = learning_rate, token_learning_rate
        self.rank, self.regularization_weight = rank, regularization_weight

    def initial_embedding(self, base: BaseModel, concept: Concept, seed: int) -> list[Tensor]:
        """Starts the token at random, not at the class word."""
        return random_embedding(base, concept.class_word, seed, concept.token)

    def start_stage(self, context: StageContext) -> None:
        """Lays factors on every key and value weight; their product is zero at the start."""
        super().start_stage(context)
        device = context.base.device
        self.delta = LowRankDelta(context.weights, self.rank, (context.seed, context.stage), device)
        earlier = [context.weights[name] - context.base_weights[name] for name in self.delta.names]
        self.earlier = BufferList([matrix.to(device) for matrix in earlier])
        self.is_first = not any(bool(matrix.any()) for matrix in earlier)
        self.token = nn.ParameterList(context.tokens.train(context.concept.token))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Names the factors and the token."""
        factors = [*self.delta.ups, *self.delta.downs]
        return [
            ParameterGroup("token", list(self.token), self.rate("token_learning_rate")),
            ParameterGroup("factors", factors, self.rate()),
        ]

    def trained_weights(self) -> dict[str, Tensor]:
        """Returns the key and value weights with the products added."""
        self.products = self.delta.products()
        return self.delta.weights(self.products)

    def penalty(self) -> Tensor | None:
        """Returns the weighted self-regularization; nothing while there is nothing to protect."""
        if self.is_first or self.regularization_weight == 0:
            return None
        return self.regularization_weight * self_regularization(list(self.earlier), self.products)

    def finish_stage(self) -> ConceptRecord:
        """Keeps the factors in half precision, and the token."""
        return self.record(None, torch.zeros(0), list(self.token), self.delta.rounded())
