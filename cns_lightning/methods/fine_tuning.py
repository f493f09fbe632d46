"""Naive sequential fine-tuning: every key and value weight moves, nothing holds earlier concepts; the lower bound."""

from __future__ import annotations

from cns_lightning.methods.dense import DenseMethod
from cns_lightning.ranges import NonNegative


class FineTuning(DenseMethod):
    """Trains all key and value weights and the concept's token.

    Args:
        learning_rate: learning rate of the key and value weights.
        token_learning_rate: learning rate of the concept's token embedding.
        detach_first_token: leave keys and values of the first token untrained.
    """

    display_name = "naive fine-tuning"

    def __init__(
        self,
        learning_rate: NonNegative = 4e-5,
        token_learning_rate: NonNegative = 4e-5,
        detach_first_token: bool = True,
    ) -> None:
        super().__init__(learning_rate, token_learning_rate, detach_first_token)
