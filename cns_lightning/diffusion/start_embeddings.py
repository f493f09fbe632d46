"""Where a concept's token starts that starts from no rare word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cns_lightning.determinism import normal
from cns_lightning.diffusion.text import token_ids
from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from cns_lightning.diffusion.base_model import BaseModel

INITIAL_NOISE = 0.5
"""Deviation of the noise on a concept's first embedding, in standard deviations of its class word's vectors."""


def initial_embedding(base: BaseModel, class_word: str, seed: int, token: str) -> list[Tensor]:
    """Returns where a concept's token starts: the mean of its class word's vectors, plus noise of its own.

    Without the noise two concepts of one class would have the same neurons.

    Args:
        base: the model; learned tokens do not change the result.
        class_word: one or more words.
        seed: base random seed.
        token: the concept's token, which picks the noise.

    Returns:
        One vector for each encoder, shape (1, width), float32, on the CPU.

    Raises:
        UserError: if nothing is left of the class word when it is read.

    Source: docs/methods.md 1.4, token init (class word + noise); the noise's size is our choice.
    """
    vectors = []
    for number, rows in enumerate(_rows_of(base, class_word, token)):
        noise = normal((1, rows.shape[1]), seed, "initial_embedding", token, number)
        vectors.append(rows.mean(0, keepdim=True) + INITIAL_NOISE * rows.std() * noise)
    return vectors


def word_embedding(base: BaseModel, class_word: str, token: str) -> list[Tensor]:
    """Returns the mean of a class word's vectors, one for each encoder, shape (1, width), float32, on the CPU.

    Args:
        base: the model.
        class_word: one or more words.
        token: the concept's token, for messages.

    Raises:
        UserError: if nothing is left of the class word when it is read.
    """
    return [rows.mean(0, keepdim=True) for rows in _rows_of(base, class_word, token)]


def random_embedding(base: BaseModel, class_word: str, seed: int, token: str) -> list[Tensor]:
    """Returns random vectors as spread as those of a word, for a token that starts from nothing.

    Args:
        base: the model.
        class_word: whose vectors set the spread; not that of the whole table, most rows of which a small model may
            never have trained.
        seed: base random seed.
        token: the concept's token, which picks the vectors.

    Returns:
        One vector for each encoder, shape (1, width), float32, on the CPU.

    Raises:
        UserError: if nothing is left of the class word when it is read.

    Source: Continual Diffusion (arXiv 2304.06027), tokens; docs/methods.md 7, the scale is our reading.
    """
    rows = enumerate(_rows_of(base, class_word, token))
    return [each.std() * normal((1, each.shape[1]), seed, "random_embedding", token, number) for number, each in rows]


def _rows_of(base: BaseModel, class_word: str, token: str) -> list[Tensor]:
    """Returns a class word's vectors, for each encoder of shape (tokens of the word, width), float32, on the CPU."""
    found = []
    for number, tokenizer in enumerate(base.tokenizers):
        ids = token_ids(tokenizer, class_word)
        if not ids:
            raise UserError(f"class_word of {token}", f"{class_word!r} holds no word", "Say what it is, such as cat")
        found.append(base.embedding_table(number).weight.detach()[ids].float().cpu())
    return found
