"""Where the tokens of a sequence start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cns_lightning.diffusion.rare_words import assigned_starts, chosen_rare_words, rare_word_embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.methods.base import Method
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.sequences.sequence import Concept


@dataclass(frozen=True)
class TokenStarts:
    """Where every token of a sequence starts.

    Attributes:
        embeddings: by token, for each encoder, shape (vectors, width), float32, on the CPU.
        rare_words: by token, the words it starts from; no entry where it starts from something else.
    """

    embeddings: dict[str, list[Tensor]]
    rare_words: dict[str, tuple[str, ...]]


def rare_words_of(
    method: Method, base: BaseModel, given: Sequence[str] | str, device: torch.device | str = "cpu"
) -> tuple[str, ...]:
    """Returns the rare words for a new run, none for a method that starts tokens from something else.

    Args:
        method: says whether tokens start from rare words.
        base: the base model, on the CPU, with nothing learned.
        given: see `chosen_rare_words`.
        device: where words are ranked; for Stable Diffusion that takes minutes on a processor.

    Raises:
        UserError: if a given word cannot be used, or there are none.
    """
    if not method.starts_from_rare_word:
        return ()
    if given != "auto":
        return chosen_rare_words(base, given)
    base.to(device=device)
    words = chosen_rare_words(base, given)
    base.to(device="cpu")
    return words


def token_starts(
    method: Method, base: BaseModel, concepts: Sequence[Concept], registry: NeuronRegistry, seed: int
) -> TokenStarts:
    """Returns where the tokens of all concepts start.

    Args:
        method: says from what.
        base: the base model, before tokens are added.
        concepts: concepts of the sequence, in learning order.
        registry: registry of the run: rare words of the base model, and from which of them learned concepts started.
        seed: base random seed.

    Raises:
        UserError: if a token cannot start.
    """
    if not method.starts_from_rare_word:
        return TokenStarts({each.token: method.initial_embedding(base, each, seed) for each in concepts}, {})
    taken = {record.token: record.rare_words for record in registry.records if record.rare_words}
    words = assigned_starts([each.token for each in concepts], registry.rare_words, taken)
    return TokenStarts({token: rare_word_embedding(base, start) for token, start in words.items()}, words)
