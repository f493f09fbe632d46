"""What methods share that train whole key and value matrices and the token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cns_lightning.methods.base import Method, ParameterGroup, StageContext
from cns_lightning.methods.deltas import DenseDelta
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.ranges import NonNegative
from cns_lightning.registry.record import ConceptRecord


class DenseMethod(Method):
    """Trains all key and value weights and the concept's token, from where the stage's context has them.

    Args:
        learning_rate: learning rate of the key and value weights.
        token_learning_rate: learning rate of the concept's token embedding.
        detach_first_token: leave keys and values of the first token untrained.
    """

    starts_from_rare_word = True

    def __init__(self, learning_rate: NonNegative, token_learning_rate: NonNegative, detach_first_token: bool) -> None:
        super().__init__()
        self.learning_rate, self.token_learning_rate = learning_rate, token_learning_rate
        self.detach_first_token = self.detaches_first_token = detach_first_token

    def start_stage(self, context: StageContext) -> None:
        """Lays a delta on every key and value weight."""
        super().start_stage(context)
        self.delta = DenseDelta(context.weights, context.base.device)
        self.token = nn.ParameterList(context.tokens.train(context.concept.token))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Names the key and value weights and the token."""
        return [
            ParameterGroup("weights", [self.delta.values], self.rate()),
            ParameterGroup("token", list(self.token), self.rate("token_learning_rate")),
        ]

    def trained_weights(self) -> dict[str, Tensor]:
        """Returns the key and value weights with the delta on them."""
        return self.delta.weights()

    def finish_stage(self) -> ConceptRecord:
        """Keeps a delta for every weight, in half precision, and the token."""
        shapes = {name: origin.shape for name, origin in zip(self.delta.names, self.delta.origins, strict=True)}
        everything = NeuronMask.from_bools(
            {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
        )
        return self.record(everything, self.delta.values, list(self.token))
