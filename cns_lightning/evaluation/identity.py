"""Identity: whether a picture drawn of one concept is closer to the photos of that concept than to any other picture.

After Finer-Personalization Rank (arXiv 2512.19026); there the look-alikes are photos, here the base model draws them.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torchmetrics.functional.retrieval import retrieval_average_precision

from cns_lightning.evaluation.pictures import PictureFolder
from cns_lightning.evaluation.questions import Question
from cns_lightning.sequences.templates import class_training_prompt

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from cns_lightning.evaluation.evaluate import Pair
    from cns_lightning.evaluation.metrics import ClipEncoder
    from cns_lightning.evaluation.settings import EvaluationSettings
    from cns_lightning.sequences.sequence import Concept

FOLDER = "look-alikes"
"""Name of the folder of look-alikes, beside those of the states of the model."""
GROUP = "lookalike"
"""Group of their prompts."""


class LookAlikes:
    """Pictures of the classes of concepts, drawn by the base model: right in class, but not in identity.

    Concepts with one class prompt share their look-alikes.

    Attributes:
        place: the pictures.

    Args:
        folder: folder of all pictures of an evaluation.
        base_fingerprint: fingerprint of the base model.
        concepts: all concepts of the sequence, in learning order.
        settings: number of pictures of each class prompt, prompt templates, and the sampler.
    """

    def __init__(
        self, folder: Path, base_fingerprint: str, concepts: Sequence[Concept], settings: EvaluationSettings
    ) -> None:
        drawn_by = settings.drawn_by(base_fingerprint)
        self.place = PictureFolder(folder / FOLDER, drawn_by, settings.steps, settings.guidance)
        self.concepts, self.settings = concepts, settings

    def labels(self, learned: Collection[str]) -> dict[Question, str]:
        """Returns the class prompts of learned concepts, each with the label of its pictures: ``any cat``.

        Args:
            learned: tokens of the concepts that count.
        """
        numbers: dict[str, int] = {}
        found: dict[Question, str] = {}
        for concept in self.concepts:
            prompt = class_training_prompt(concept, self.settings.templates)
            # Counted over the whole sequence, so that a prompt keeps its file names while concepts are learned.
            number = numbers.setdefault(prompt, len(numbers))
            if concept.token in learned:
                found.setdefault(Question(GROUP, number, prompt, prompt), f"any {concept.class_word}")
        return found

    def pairs(self, learned: Collection[str]) -> list[Pair]:
        """Lists the prompts and seeds of the look-alikes of learned concepts, by prompt."""
        return [(question, seed) for question in self.labels(learned) for seed in range(self.settings.look_alikes)]

    def encode(self, learned: Collection[str], judge: ClipEncoder) -> dict[Question, Tensor]:
        """Encodes the look-alikes of learned concepts by class prompt, each (look_alikes, width), unit length.

        Raises:
            FileNotFoundError: if a picture is missing.
        """
        pairs = self.pairs(learned)
        if not pairs:
            return {}
        vectors = judge.images(self.place.read(pairs))
        return dict(zip(self.labels(learned), vectors.split(self.settings.look_alikes), strict=True))

    def gallery(
        self, learned: Collection[str], references: Mapping[str, Tensor], encoded: Mapping[Question, Tensor]
    ) -> dict[str, Tensor]:
        """Returns the gallery of learned concepts by label: their photos by token, then look-alikes by class.

        Args:
            learned: tokens, in learning order.
            references: vectors of the user's photos by token, each (photos, width).
            encoded: vectors of look-alikes, from `encode`; empty for a gallery of photos alone.
        """
        parts = {token: [references[token]] for token in learned}
        for question, label in self.labels(learned).items():
            if question in encoded:
                parts.setdefault(label, []).append(encoded[question])
        return {label: torch.cat(vectors) for label, vectors in parts.items()}


def identity_scores(pairs: Sequence[Pair], vectors: Tensor | None, gallery: Mapping[str, Tensor]) -> dict[str, Any]:
    """Computes how well pictures of one concept find the photos of that concept in a gallery.

    Every picture ranks the whole gallery by cosine. At equal cosines the photos of the asked concept come last, the
    others in the order of the gallery.

    Args:
        pairs: prompts and seeds of the drawn pictures; those of single prompts are the queries.
        vectors: vectors of the drawn pictures, (pairs, width), unit length; None where there are none.
        gallery: vectors by label, each (pictures, width), unit length; must hold the token of every query.

    Returns:
        ``top1``, the share of queries whose nearest picture is a photo of the asked concept, and
        ``mean_average_precision`` of those photos, both from 0 to 1 and None without a query: means over queries, and
        under ``concepts`` the same by token.

    Source: Finer-Personalization Rank (arXiv 2512.19026).
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for token, _, relevant in _rankings(pairs, vectors, gallery):
        # Places count down in place of cosines: torchmetrics drops relevant pictures with scores below zero, and
        # leaves open what comes first among equal ones.
        places = torch.arange(len(relevant), 0, -1, dtype=torch.float32)
        found[token].append((float(relevant[0]), float(retrieval_average_precision(places, relevant))))
    tokens = [label for label in gallery if label in found]
    everything = _means([each for token in tokens for each in found[token]])
    return {**everything, "concepts": {token: _means(found[token]) for token in tokens}}


def within_class(
    class_words: Mapping[str, str], pairs: Sequence[Pair], vectors: Tensor | None, references: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Computes identity among the photos of concepts that share their class word: whether these are told apart.

    Args:
        class_words: class words of the sequence by token.
        pairs: questions and seeds, as for `identity_scores`.
        vectors: vectors of the pictures, as for `identity_scores`.
        references: vectors of the user's photos by token, each (photos, width); tokens that are missing do not count.

    Returns:
        As `identity_scores`, means over concepts; of concepts whose class word no other one shares, nothing.
    """
    rows: dict[str, dict[str, float]] = {}
    for word in dict.fromkeys(class_words.values()) if vectors is not None else ():
        gallery = {
            token: references[token] for token in class_words if class_words[token] == word and token in references
        }
        asked = [number for number, (question, _) in enumerate(pairs)
                 if question.group == "single" and question.tokens[0] in gallery]  # fmt: skip
        if len(gallery) > 1 and vectors is not None:
            rows |= identity_scores([pairs[number] for number in asked], vectors[asked], gallery)["concepts"]
    means = _means([(row["top1"], row["mean_average_precision"]) for row in rows.values()])
    return {**means, "concepts": rows}


def among_themselves(references: Mapping[str, Tensor]) -> dict[str, Any]:
    """Computes identity for the user's photos in place of drawn pictures: each is a query among all the other photos.

    What a model could reach whose pictures are as like the photos as these are each other: a bound, and often below 1.

    Args:
        references: vectors of the photos by token, each (photos, width), unit length.

    Returns:
        As `identity_scores`; photos of a concept that has only one have no other to find, and do not count.
    """
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for token, photos in references.items():
        for number in range(len(photos) if len(photos) > 1 else 0):
            others = torch.cat([photos[:number], photos[number + 1 :]])
            asked = Question("single", number, "", "", (token,))
            gallery = {label: others if label == token else vectors for label, vectors in references.items()}
            found[token].append(identity_scores([(asked, 0)], photos[number : number + 1], gallery))
    rows = {
        token: [(each["top1"], each["mean_average_precision"]) for each in scores] for token, scores in found.items()
    }
    every = _means([each for scores in rows.values() for each in scores])
    return {**every, "concepts": {token: _means(scores) for token, scores in rows.items()}}


def confusion(
    pairs: Sequence[Pair], vectors: Tensor | None, gallery: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Computes what pictures of one concept are taken for: the label of the nearest picture of a gallery.

    Args:
        pairs: questions and seeds, as for `identity_scores`.
        vectors: vectors of the pictures, as for `identity_scores`.
        gallery: gallery, as for `identity_scores`.

    Returns:
        By token of the asked concept, the share of its queries for every label of the gallery, in the gallery's order;
        the shares of a token add up to 1.
    """
    nearest: dict[str, list[str]] = defaultdict(list)
    for token, labels, _ in _rankings(pairs, vectors, gallery):
        nearest[token].append(labels[0])
    return {
        token: {label: nearest[token].count(label) / len(nearest[token]) for label in gallery}
        for token in gallery
        if token in nearest
    }


def _rankings(
    pairs: Sequence[Pair], vectors: Tensor | None, gallery: Mapping[str, Tensor]
) -> list[tuple[str, list[str], Tensor]]:
    """Ranks the gallery for every query: the asked token, labels from the nearest on, and which are of that token."""
    queries = [number for number, (question, _) in enumerate(pairs) if question.group == "single"]
    if vectors is None or not queries:
        return []
    labels = [label for label, pictures in gallery.items() for _ in range(len(pictures))]
    cosines = vectors[queries].cpu().double() @ torch.cat(list(gallery.values())).cpu().double().T
    ranked = []
    for number, row in zip(queries, cosines, strict=True):
        (token,) = pairs[number][0].tokens
        relevant = torch.tensor([label == token for label in labels])
        # Two stable sorts, the minor key first.
        asked_last = relevant.int().argsort(stable=True)
        order = asked_last[row[asked_last].argsort(descending=True, stable=True)]
        ranked.append((token, [labels[place] for place in order.tolist()], relevant[order]))
    return ranked


def _means(found: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    first, precision = zip(*found, strict=True) if found else ((), ())
    return {
        "top1": statistics.fmean(first) if first else None,
        "mean_average_precision": statistics.fmean(precision) if precision else None,
    }
