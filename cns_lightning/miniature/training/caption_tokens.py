"""Token ids of all captions of a training, and the rare words sprinkled into them where the captions lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cns_lightning.miniature import architecture
from cns_lightning.miniature.world import sampling

NOT_SAID = 0.1
"""How often a caption is dropped, for classifier-free guidance."""
SPRINKLED = 0.15
"""How often a word without meaning stands before a noun."""


def tokenize(tokenizer: Any, captions: list[str]) -> Tensor:
    """Returns token ids, shape (captions, prompt length)."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


@dataclass(frozen=True)
class CaptionTokens:
    """Captions as token ids on the device of the training, so that a step waits for no tokenizer.

    Attributes:
        ids: shape (captions, prompt length), int64.
        empty: ids of the empty caption, shape (prompt length,).
        nouns: which tokens are nouns, shape (vocabulary,), bool.
        rare: ids of the words without meaning, shape (words,).
        end: id of the end token.
    """

    ids: Tensor
    empty: Tensor
    nouns: Tensor
    rare: Tensor
    end: int

    @classmethod
    def of(cls, captions: list[str], tokenizer: Any, device: str) -> CaptionTokens:
        """Tokenizes captions."""

        def single(words: tuple[str, ...]) -> Tensor:
            return tokenize(tokenizer, list(words))[:, 1]

        nouns = torch.zeros(len(tokenizer), dtype=torch.bool)
        nouns[single((*sampling.KINDS, "scene", "style"))] = True
        ids, empty = tokenize(tokenizer, captions), tokenize(tokenizer, [""])[0]
        rare = single(architecture.RARE_WORDS)
        return cls(ids.to(device), empty.to(device), nouns.to(device), rare.to(device), tokenizer.eos_token_id)

    def sprinkled(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Returns the ids of some captions, a word without meaning before a noun now and then, some dropped.

        Args:
            indices: indices of the captions, shape (batch,), on the device of the ids.
            generator: on the same device; its state decides.

        Returns:
            Shape (batch, prompt length); the last token is always the end token.
        """
        ids, draws = self.ids[indices], torch.rand(2, len(indices), 1, generator=generator, device=self.ids.device)
        nouns = self.nouns[ids]
        named = nouns.any(1, keepdim=True)
        place = torch.multinomial((nouns | ~named).float(), 1, generator=generator)
        words = self.rare[torch.randint(len(self.rare), place.shape, generator=generator, device=ids.device)]
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        longer = ids.gather(1, positions - (positions > place).long()).where(positions != place, words)
        longer[:, -1] = self.end
        ids = torch.where(named & (draws[0] < SPRINKLED), longer, ids)
        return torch.where(draws[1] < NOT_SAID, self.empty, ids)
