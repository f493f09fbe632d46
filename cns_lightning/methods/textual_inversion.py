"""Textual Inversion: only the token's embedding is learned.

Source: arXiv 2208.01618, section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from cns_lightning.diffusion.start_embeddings import word_embedding
from cns_lightning.methods.base import Method, ParameterGroup, StageContext
from cns_lightning.ranges import NonNegative
from cns_lightning.registry.record import ConceptRecord

if TYPE_CHECKING:
    from torch import Tensor

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.sequences.sequence import Concept


class TextualInversion(Method):
    """Trains the concept's token; no concept can forget another. Prompts name the token without a class word.

    Args:
        token_learning_rate: learning rate of the token's embedding.
    """

    names_class_word = False

    def __init__(self, token_learning_rate: NonNegative = 5e-4) -> None:
        super().__init__()
        self.token_learning_rate = token_learning_rate

    def initial_embedding(self, base: BaseModel, concept: Concept, seed: int) -> list[Tensor]:
        """Returns the class word's own vector, as in the published code, one for each encoder."""
        return word_embedding(base, concept.class_word, concept.token)

    def start_stage(self, context: StageContext) -> None:
        """Makes the token trainable."""
        super().start_stage(context)
        self.token = nn.ParameterList(context.tokens.train(context.concept.token))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Names the token."""
        return [ParameterGroup("token", list(self.token), self.rate("token_learning_rate"))]

    def finish_stage(self) -> ConceptRecord:
        """Keeps the token."""
        return self.record(None, torch.zeros(0), list(self.token))
