"""Whether a picture of several concepts shows all of them: which of the things named the judge sees in it.

CLIP-I and CLIP-T do not tell: two concepts that melt into one thing are like the photos of both. So each picture is
compared with the texts that name some of the things asked for, and with the one that names all. Without a threshold.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from cns_lightning.evaluation.metrics import ClipEncoder
    from cns_lightning.evaluation.questions import Question
    from cns_lightning.sequences.sequence import Concept

THINGS = ("animal", "object")


def shows_all(
    concepts: Iterable[Concept], asked: Sequence[Question], vectors: Tensor, judge: ClipEncoder
) -> list[bool | None]:
    """Finds out whether each picture shows all animals and objects that its prompt names by a concept.

    It does where, of all texts that name one or more of them (``a bird``, ``a rabbit``, ``a bird and a rabbit``), the
    nearest names every one.

    Args:
        concepts: concepts of the sequence.
        asked: question of each picture.
        vectors: the judge's, of the pictures, (pictures, width).
        judge: encodes the texts.

    Returns:
        None for pictures of fewer than two such concepts, and of two of one class, which a text does not tell apart.
    """
    words = {concept.token: concept.class_word for concept in concepts if concept.kind in THINGS}
    found: list[bool | None] = []
    known: dict[tuple[str, ...], Tensor] = {}
    for question, vector in zip(asked, vectors, strict=True):
        named = tuple(words[token] for token in question.tokens if token in words)
        if len(named) < 2 or len(set(named)) < len(named):
            found.append(None)
            continue
        if named not in known:
            known[named] = judge.texts(list(map(_text, _choices(named))))
        found.append(int((known[named] @ vector).argmax()) == len(known[named]) - 1)
    return found


def _choices(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Lists every choice of one word or more; all of them come last."""
    return [choice for count in range(1, len(words) + 1) for choice in combinations(words, count)]


def _text(words: tuple[str, ...]) -> str:
    return " and ".join(f"{'an' if word[:1].lower() in 'aeiou' else 'a'} {word}" for word in words)
