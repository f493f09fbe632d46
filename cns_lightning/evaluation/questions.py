"""What a learned model is asked: the sequence's evaluation prompts, and the texts their pictures are compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cns_lightning.sequences.sequence import TOKEN
from cns_lightning.sequences.templates import token_alone

if TYPE_CHECKING:
    from collections.abc import Collection

    from cns_lightning.sequences.sequence import Concept, Sequence

BASE_PROMPTS = ("a photo of a cat", "a photo of a dog in the snow", "a sketch of a boat")
"""Prompts that name no concept, where none are given: what becomes of them shows drift."""
UNTOUCHED = "untouched"
TEXT_RULE = (
    "The judge reads the prompt with each token and its class word replaced by the class word alone; "
    "words that name a style are left out."
)
"""What `scoring_text` does, in one sentence for readers of scores."""


@dataclass(frozen=True)
class Question:
    """One prompt.

    Attributes:
        group: ``single``, ``double``, ``triple``; ``untouched`` for one that names no concept, ``lookalike`` for one
            that names a class.
        number: number within its group, from 0.
        prompt: prompt for the model.
        text: text for the judge.
        tokens: tokens of the concepts it names.
    """

    group: str
    number: int
    prompt: str
    text: str
    tokens: tuple[str, ...] = ()


def questions(sequence: Sequence, learned: Collection[str], names_class_word: bool = True) -> list[Question]:
    """Lists the prompts of a sequence that name learned concepts alone, singles first.

    Their numbers are those in the sequence file, so that a question keeps its name while concepts are added.

    Args:
        sequence: whose prompts say ``<new1> cat``.
        learned: tokens that count.
        names_class_word: False leaves the class word out, for methods that never saw it beside the token.
    """
    found = []
    for group in ("single", "double", "triple"):
        for number, prompt in enumerate(getattr(sequence.prompts, group)):
            tokens = tuple(dict.fromkeys(TOKEN.findall(prompt)))
            if all(token in learned for token in tokens):
                given = prompt if names_class_word else token_alone(prompt, sequence.concepts)
                found.append(Question(group, number, given, scoring_text(prompt, sequence), tokens))
    return found


def described(prompt: str, sequence: Sequence) -> str:
    """Returns a prompt with every concept in the words of its description: what words alone can ask for."""
    for concept in sequence.concepts:
        words = re.sub(r"^(?:an?|the) ", "", concept.description or concept.class_word, flags=re.IGNORECASE)
        article = "an" if words[:1].lower() in "aeiou" else "a"
        named = rf"{re.escape(concept.token)}(?: {re.escape(concept.class_word)}(?:e?s)?(?!\w))?"
        # "a <new1> cat" becomes "an orange cat".
        prompt = re.sub(rf"\ban? (?={named})", f"{article} ", prompt)
        prompt = re.sub(rf"\bAn? (?={named})", f"{article.capitalize()} ", prompt)
        prompt = re.sub(named, words.replace("\\", r"\\"), prompt, flags=re.IGNORECASE)
    return prompt


def untouched_questions(prompts: list[str]) -> list[Question]:
    """Makes questions of prompts that name no concept: their pictures should not change."""
    return [Question(UNTOUCHED, number, prompt, prompt) for number, prompt in enumerate(prompts)]


def scoring_text(prompt: str, sequence: Sequence) -> str:
    """Returns a prompt without tokens, for the judge: a concept by its class word, a style by nothing.

    A judge knows no name for a style that a user teaches, so the text keeps what the picture shows and leaves out how:
    ``a dog in <new4> style`` is compared with ``a dog``. Source: docs/evaluation.md, CLIP-T.
    """
    for concept in sequence.concepts:
        prompt = _without_style(prompt, concept) if concept.kind == "style" else _with_class(prompt, concept)
    return prompt


def _with_class(prompt: str, concept: Concept) -> str:
    with_class = f"{concept.token} {concept.class_word}"
    return prompt.replace(with_class, concept.class_word).replace(concept.token, concept.class_word)


def _without_style(prompt: str, concept: Concept) -> str:
    word = re.escape(concept.class_word)
    # a <new3> painting of a dog: the class word says what it is
    prompt = re.sub(rf"{re.escape(concept.token)} ({word}) (?=of\b)", r"\1 ", prompt, flags=re.IGNORECASE)
    named = rf"{re.escape(concept.token)}(?: {word})?(?: style)?(?!\w)"
    manner = rf"(?:in|by)(?: an?| the)?(?: style of)? {named}"
    # a <new3> style old photo: an old photo
    prompt = re.sub(
        rf"\b(a)n? {named} (?!(?:style|{word})\b)(?=(\w))",
        lambda found: f"{found[1]}n " if found[2].lower() in "aeiou" else f"{found[1]} ",
        prompt,
        flags=re.IGNORECASE,
    )
    shorter = re.sub(rf"^{manner},?|,? {manner}|{named}", "", prompt, flags=re.IGNORECASE)
    shorter = " ".join(shorter.split()).strip(", ")
    return shorter or concept.class_word
