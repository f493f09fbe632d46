"""Custom Diffusion: all key and value weights and a token, each concept by itself; then one merge of all.

Source: arXiv 2212.04488 and its published code; docs/methods.md 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from cns_lightning.diffusion.text import text_states
from cns_lightning.methods.constrained_merge import ConstrainedMerge
from cns_lightning.methods.dense import DenseMethod
from cns_lightning.ranges import NonNegative, Positive
from cns_lightning.sequences.calibration import read_calibration_prompts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.registry.record import ConceptRecord


class CustomDiffusion(DenseMethod):
    """Trains all key and value weights and the token from the pretrained model, with pictures of the class beside.

    The trained tokens stay as they are when concepts are merged.

    Args:
        learning_rate: learning rate of the key and value weights.
        token_learning_rate: learning rate of the concept's token embedding.
        prior_weight: factor on the denoising loss of pictures of the class, relative to a loss of the concept that is
            summed over the latent channels.
        detach_first_token: leave keys and values of the first token untrained.
        captions: what the merged model treats as before: file of calibration prompts, or the name of one that ships.
        ridge: ridge of the merge, as a share of the mean of the captions' Gram diagonal.
    """

    fuses = True

    def __init__(
        self,
        learning_rate: NonNegative = 4e-5,
        token_learning_rate: NonNegative = 4e-5,
        prior_weight: NonNegative = 1.0,
        detach_first_token: bool = True,
        captions: str = "stable_diffusion",
        ridge: Positive = 1e-6,
    ) -> None:
        super().__init__(learning_rate, token_learning_rate, detach_first_token)
        self.prior_weight = prior_weight
        self.captions, self.ridge = captions, ridge

    def fusion_settings(self) -> dict[str, object]:
        """Returns the captions and the ridge."""
        return {"captions": read_calibration_prompts(self.captions), "ridge": self.ridge}

    @torch.no_grad()
    def fuse(
        self, records: Sequence[ConceptRecord], base: BaseModel, base_weights: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Merges the concepts: each keeps its own keys and values for its words, other captions the pretrained ones."""
        captions = list(read_calibration_prompts(self.captions))
        words = [
            states_of_words(base, [f"{record.token} {record.class_word}", record.prompt], record.token)
            for record in records
        ]
        merge = ConstrainedMerge(states_of_captions(base, captions), words, self.ridge)
        deltas = []
        for record in records:
            moved = {name: torch.zeros_like(weight) for name, weight in base_weights.items()}
            record.add_to(moved)
            deltas.append(moved)
        return {name: merge.merged(weight, [each[name] for each in deltas]) for name, weight in base_weights.items()}


def states_of_captions(base: BaseModel, captions: list[str]) -> Tensor:
    """Returns the text states of captions, start to end token, shape (states, width), float32, on the CPU."""
    parts = []
    for start in range(0, len(captions), 32):
        encoded = text_states(base, captions[start : start + 32])
        parts.append(encoded.states[encoded.positions])
    return torch.cat(parts).float().cpu()


def states_of_words(base: BaseModel, prompts: list[str], token: str) -> Tensor:
    """Returns the text states from a concept's token to the end token, equal ones once, (states, width), on the CPU.

    Source: docs/methods.md 4.5, details: tokens of the words, the end token included, no padding.
    """
    encoded = text_states(base, prompts)
    own = torch.eq(encoded.token_ids, cast("int", base.tokenizers[0].convert_tokens_to_ids(token)))
    counted = (own.cumsum(1) > 0) & encoded.positions
    states = encoded.states[counted].float().cpu()
    different: list[Tensor] = []
    for row in states:
        if not any(torch.equal(row, each) for each in different):
            different.append(row)
    return torch.stack(different)
