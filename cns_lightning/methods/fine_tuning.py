"""Naive sequential fine-tuning: every key and value weight moves, nothing holds earlier concepts; the lower bound."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cns_lightning.methods.base import Method, ParameterGroup, StageContext
from cns_lightning.methods.deltas import SparseDelta
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.ranges import NonNegative
from cns_lightning.registry.record import ConceptRecord


class FineTuning(Method):
    """Trains all key and value weights and the concept's token.

    Args:
        learning_rate: of the key and value weights.
        token_learning_rate: of the concept's token embedding.
        detach_first_token: leave keys and values of the first token untrained.
    """

    display_name = "naive fine-tuning"

    starts_from_rare_word = True

    def __init__(
        self,
        learning_rate: NonNegative = 4e-5,
        token_learning_rate: NonNegative = 4e-5,
        detach_first_token: bool = True,
    ) -> None:
        super().__init__()
        self.learning_rate, self.token_learning_rate = learning_rate, token_learning_rate
        self.detaches_first_token = detach_first_token

    def start_stage(self, context: StageContext) -> None:
        """Lays a delta on every key and value weight."""
        super().start_stage(context)
        everything = {name: torch.ones(weight.shape, dtype=torch.bool) for name, weight in context.weights.items()}
        self.mask = NeuronMask.from_bools(everything)
        self.delta = SparseDelta(context.weights, self.mask, context.base.device)
        self.token = nn.ParameterList(context.tokens.train(context.concept.token))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Names the key and value weights and the token."""
        return [
            ParameterGroup("weights", [self.delta.values], self.learning_rate),
            ParameterGroup("token", list(self.token), self.token_learning_rate),
        ]

    def trained_weights(self) -> dict[str, Tensor]:
        """Gives the key and value weights with the delta on them."""
        return self.delta.weights()

    def finish_stage(self) -> ConceptRecord:
        """Keeps a delta for every weight, in half precision, and the token."""
        return self.record(self.mask, self.delta.values, list(self.token))
