"""Scores of pictures by group of prompts, kind of concept and concept; how alike pictures are to a concept's."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from torchmetrics import MeanMetric

from cns_lightning.evaluation.composition import shows_all
from cns_lightning.evaluation.metrics import ImageAlignment, TextAlignment
from cns_lightning.evaluation.questions import UNTOUCHED, Question

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from cns_lightning.evaluation.metrics import ClipEncoder
    from cns_lightning.sequences.sequence import Concept

    Pair = tuple[Question, int]

PARTS = ("groups", "kinds", "kinds_of_several", "concepts")
"""Of the scores of a state: each has rows by name, each row its figures by name."""


def likeness(token: str, pairs: Sequence[Pair], vectors: Tensor | None, references: Tensor) -> float | None:
    """Returns CLIP-I of the pictures that were drawn of one concept alone; None where there are none.

    Args:
        token: token of the concept.
        pairs: questions and seeds of the drawn pictures.
        vectors: vectors of the drawn pictures, (pairs, width).
        references: references of the pictures to compare with, (pictures, width).
    """
    mine = [number for number, (question, _) in enumerate(pairs) if question.tokens == (token,)]
    if not mine or vectors is None:
        return None
    return float((vectors[mine].double() @ references.double().T).mean())


def likeness_within_class(
    concepts: Sequence[Concept], pairs: Sequence[Pair], vectors: Tensor, references: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Computes, for concepts that share their class word, how alike the pictures of one are to those of each: CLIP-I.

    Where another's is as high as its own, two concepts are drawn alike, or neither is learned.

    Args:
        concepts: concepts of the sequence.
        pairs: questions and seeds of the drawn pictures; single prompts count.
        vectors: the judge's, of the drawn pictures, (pairs, width).
        references: the judge's, of the user's pictures by token, each (pictures, width); tokens that are missing are
            not learned and do not count.

    Returns:
        By token of the concept that was asked for, then by token of whose pictures it was compared with, its own first.
    """
    of_class: dict[str, list[str]] = defaultdict(list)
    for concept in concepts:
        if concept.token in references:
            of_class[concept.class_word].append(concept.token)
    found: dict[str, dict[str, float]] = {}
    for tokens in of_class.values():
        for token in tokens if len(tokens) > 1 else ():
            of_class_too = (token, *(each for each in tokens if each != token))
            alike = {each: likeness(token, pairs, vectors, references[each]) for each in of_class_too}
            if known := {each: value for each, value in alike.items() if value is not None}:
                found[token] = known
    return found


class ScoreTable:
    """Scores by group of prompts, kind of concept and concept.

    A picture of several concepts counts for each of them, once: in its group, and for the kind of each among several.
    Kinds and concepts by themselves are scored on single prompts alone.

    Args:
        concepts: concepts that questions name.
    """

    def __init__(self, concepts: Iterable[Concept]) -> None:
        self.concepts = tuple(concepts)
        self.kinds = {concept.token: concept.kind for concept in self.concepts}
        # Pictures are scored by one process: a mean that asked the others would wait for ever.
        self.whole: dict[tuple[str, str], MeanMetric] = defaultdict(partial(MeanMetric, sync_on_compute=False))
        self.images: dict[str, dict[tuple[str, str], ImageAlignment]] = {}
        self.texts: dict[tuple[str, str], TextAlignment] = defaultdict(TextAlignment)
        self.scores: dict[tuple[str, str], TextAlignment] = defaultdict(partial(TextAlignment, as_score=True))

    def add(self, pairs: Sequence[Pair], vectors: Tensor, references: Mapping[str, Tensor], judge: ClipEncoder) -> None:
        """Adds pictures by the judge's vectors, of them and of the user's by token: CLIP-I, CLIP-T, all there."""
        whole = shows_all(self.concepts, [question for question, _ in pairs], vectors, judge)
        for (question, _), is_whole in zip(pairs, whole, strict=True):
            if is_whole is not None:
                self.whole["groups", question.group].update(float(is_whole))
        texts = judge.texts([question.text for question, _ in pairs])
        for (question, _), vector, text in zip(pairs, vectors, texts, strict=True):
            for place in self._places(question):
                self.texts[place].update(vector[None], text[None])
                self.scores[place].update(vector[None], text[None])
        self.add_images("clip_i", pairs, vectors, references)

    def add_images(self, figure: str, pairs: Sequence[Pair], vectors: Tensor, references: Mapping[str, Tensor]) -> None:
        """Adds the likeness of pictures to the user's pictures by token, under a figure's name."""
        # The mean cosine with several pictures is the cosine with their mean: so every concept weighs the same,
        # however many pictures there are of it.
        centres = {token: vectors.mean(0, keepdim=True) for token, vectors in references.items()}
        means = self.images.setdefault(figure, defaultdict(ImageAlignment))
        for (question, _), vector in zip(pairs, vectors, strict=True):
            for token in question.tokens:
                for place in self._places(question, token):
                    means[place].update(vector[None], centres[token])

    def _places(self, question: Question, token: str | None = None) -> Iterable[tuple[str, str]]:
        if question.group == UNTOUCHED:
            return
        yield "groups", question.group
        named = question.tokens if token is None else (token,)
        if question.group == "single":
            yield "kinds", self.kinds[named[0]]
            yield "concepts", named[0]
        else:
            # One text for all that are named: it counts once for a kind, however many of it there are.
            yield from (("kinds_of_several", kind) for kind in dict.fromkeys(self.kinds[each] for each in named))

    def result(self) -> dict[str, dict[str, dict[str, float]]]:
        """Returns the means so far."""
        found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in PARTS}
        for (part, name), metric in self.texts.items():
            found[part][name] = {
                **{figure: float(means[part, name].compute()) for figure, means in self.images.items()},
                "clip_t": float(metric.compute()),
                "clip_score": float(self.scores[part, name].compute()),
            }
            if (part, name) in self.whole:
                found[part][name]["all_there"] = float(self.whole[part, name].compute())
        return found
