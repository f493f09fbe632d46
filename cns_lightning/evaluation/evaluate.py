"""The protocol: draw what is missing, score every picture, and see what each stage has left of earlier concepts."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from cns_lightning.data.images import read_concept_pictures
from cns_lightning.evaluation.cmmd import cmmd
from cns_lightning.evaluation.forgetting import backward_transfer, forgetting_from_best, forgetting_from_learned
from cns_lightning.evaluation.identity import LookAlikes, among_themselves, confusion, identity_scores, within_class
from cns_lightning.evaluation.metrics import ImageAlignment, TextAlignment
from cns_lightning.evaluation.photos import likeness_of_photos
from cns_lightning.evaluation.pictures import PictureFolder
from cns_lightning.evaluation.questions import UNTOUCHED, Question, questions, untouched_questions
from cns_lightning.sequences.templates import DEFAULT_TEMPLATES, PromptTemplates
from cns_lightning.storage import sha256_of_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from diffusers import DiffusionPipeline
    from torch import Tensor

    from cns_lightning.evaluation.dino import DinoEncoder
    from cns_lightning.evaluation.metrics import ClipEncoder
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.sequences.sequence import Concept
    from cns_lightning.sequences.sequence import Sequence as ConceptSequence

    Pair = tuple[Question, int]
    Loader = Callable[[int], DiffusionPipeline]
    References = tuple[dict[str, Tensor], dict[str, Tensor]]

PARTS = ("groups", "kinds", "kinds_of_several", "concepts")
"""Of the scores of a state: each has rows by name, each row its figures by name."""
BASE = -1
"""The state before the first stage."""
LOOK_ALIKES = -2
"""Stands for the pictures of classes among the states; the base model draws them."""
ALL_HERE = {"sync_on_compute": False}
"""For metrics: one process sees all pictures; in a run of several, waiting for the others would never end."""


@dataclass(frozen=True)
class Settings:
    """How much is drawn and how.

    Attributes:
        pictures: number of pictures of every prompt after the last stage; the seeds are 0, 1, ... for every method.
        matrix_pictures: number of pictures of every single prompt after each earlier stage; 0 leaves the matrix out.
        untouched: prompts that name no concept, whose pictures should stay as they are.
        steps: number of steps of the sampler.
        guidance: scale of classifier-free guidance.
        batch_size: pictures drawn at once.
        names_class_word: whether the method's prompts say what a concept is.
        fusion: what the fused weights depend on besides the concepts; empty where nothing is fused.
        look_alikes: pictures of every class of a learned concept, for the gallery of `identity_scores`; 0 leaves a
            gallery of the user's photos alone.
        templates: training templates of the run, from which the prompts of the classes are made.
    """

    pictures: int = 4
    matrix_pictures: int = 1
    untouched: tuple[str, ...] = ()
    steps: int = 25
    guidance: float = 7.5
    batch_size: int = 8
    names_class_word: bool = True
    fusion: str = ""
    look_alikes: int = 8
    templates: PromptTemplates = DEFAULT_TEMPLATES


class Evaluation:
    """The evaluation of one run.

    Args:
        folder: for the pictures.
        sequence: what was to be learned.
        registry: what was learned.
        settings: how much is drawn and how.
    """

    def __init__(self, folder: Path, sequence: ConceptSequence, registry: NeuronRegistry, settings: Settings) -> None:
        self.folder, self.sequence, self.registry, self.settings = folder, sequence, registry, settings
        self.tokens = registry.tokens
        self.last = len(self.tokens) - 1
        self.look_alikes = LookAlikes(folder, registry.base_fingerprint, sequence.concepts, settings)
        self.seconds, self.drawn = 0.0, 0

    def pictures_of(self, stage: int) -> PictureFolder:
        """Returns the folder of the pictures after a stage, of the base model's, or of the look-alikes."""
        if stage == LOOK_ALIKES:
            return self.look_alikes.place
        entries = self.registry.entries[: stage + 1]
        facts = [self.registry.base_fingerprint, *(entry.sha256 for entry in entries)]
        if self.settings.fusion:
            facts.append(self.settings.fusion)
        model = sha256_of_facts(facts)
        name = "base" if stage == BASE else f"stage-{stage:02d}"
        return PictureFolder(self.folder / name, model, self.settings.steps, self.settings.guidance)

    def wanted(self, stage: int) -> list[Pair]:
        """Lists the pictures of a state."""
        if stage == LOOK_ALIKES:
            return self.look_alikes.pairs(self.tokens)
        asked, count = untouched_questions(list(self.settings.untouched)), self.settings.pictures
        if stage != BASE and stage < self.last:
            asked, count = self.singles(stage), self.settings.matrix_pictures
        elif stage != BASE:
            asked = [*self.questions(self.last), *asked]
        counts = {"single": max(count, self.settings.matrix_pictures)}
        return [(question, seed) for question in asked for seed in range(counts.get(question.group, count))]

    def singles(self, stage: int) -> list[Question]:
        """Lists the prompts that name one concept, of those learned by a stage."""
        return [each for each in self.questions(stage) if each.group == "single"]

    def questions(self, stage: int) -> list[Question]:
        """Lists the prompts that name concepts learned by a stage, in the words of the method."""
        return questions(self.sequence, self.tokens[: stage + 1], self.settings.names_class_word)

    def states(self) -> list[int]:
        """Lists the states that are drawn, the last one first: it is what a user waits for."""
        earlier = range(self.last) if self.settings.matrix_pictures else ()
        return [self.last, BASE, LOOK_ALIKES, *earlier]

    def draw(
        self, load: Loader, share: tuple[int, int] = (0, 1), progress: Callable[[str], None] | None = None
    ) -> None:
        """Draws the pictures that are missing, or this process's share of them.

        Args:
            load: gives the pipeline of a state; called only where something is missing.
            share: number of this process, and how many there are.
            progress: told how it stands.

        Raises:
            UserError: if pictures cannot be written.
        """
        # The base model draws two of the states, one after the other: it is loaded once.
        load = lru_cache(maxsize=1)(load)
        for stage in self.states():
            place, (number, count) = self.pictures_of(stage), share
            missing = place.missing(self.wanted(stage)[number::count])
            if missing:
                pipe, begin = load(max(stage, BASE)), time.monotonic()
                self.draw_state(stage, pipe, missing, progress)
                self.seconds, self.drawn = self.seconds + time.monotonic() - begin, self.drawn + len(missing)

    def draw_state(
        self,
        stage: int,
        pipe: DiffusionPipeline,
        pairs: Sequence[Pair],
        progress: Callable[[str], None] | None = None,
    ) -> None:
        """Draws pictures of one state; raises what `PictureFolder.draw` raises."""
        place = self.pictures_of(stage)

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(f"{place.folder.name}: picture {done} of {total}")

        place.draw(pipe, pairs, self.settings.batch_size, tell)

    def references(self, judge: ClipEncoder, dino: DinoEncoder | None = None) -> References:
        """Encodes the user's pictures of what was learned, for the judge and for DINO.

        Raises:
            UserError: if a picture is not there any more or damaged.
        """
        concepts = [concept for concept in self.sequence.concepts if concept.token in self.tokens]
        return reference_vectors(concepts, judge), reference_vectors(concepts, dino) if dino else {}

    def scores(self, judge: ClipEncoder, dino: DinoEncoder | None, references: References) -> dict[str, Any]:
        """Scores the pictures; all must be there. CLIP-I, CLIP-T and DINO by group, kind, concept; matrix, drift.

        Args:
            judge: for CLIP-I and CLIP-T.
            dino: for DINO; None leaves it out.
            references: from `references`.
        """
        table = Table({concept.token: concept.kind for concept in self.sequence.concepts})
        # The matrix may ask for more pictures than these figures are of.
        pairs = [pair for pair in self.wanted(self.last) if pair[1] < self.settings.pictures]
        same_class, vectors = {}, None
        alike = self.look_alikes.encode(self.tokens, judge)
        if pairs:
            pictures = self.pictures_of(self.last).read(pairs)
            vectors = judge.images(pictures)
            table.add(pairs, vectors, references[0], judge)
            same_class = likeness_within_class(self.sequence.concepts, pairs, vectors, references[0])
            if dino is not None:
                table.add_images("dino", pairs, dino.images(pictures), references[1])
        scores: dict[str, Any] = {"learned": self.tokens, **table.result(), "same_class": same_class}
        scores["photos"] = likeness_of_photos(self.sequence.concepts, references[0])
        gallery = self.look_alikes.gallery(self.tokens, references[0], alike)
        words = {concept.token: concept.class_word for concept in self.sequence.concepts}
        scores["identity"] = {
            **identity_scores(pairs, vectors, gallery),
            "among_photos": identity_scores(pairs, vectors, {token: references[0][token] for token in self.tokens}),
            "within_class": within_class(words, pairs, vectors, references[0]),
            "photos": among_themselves(references[0]),
            "confusion": confusion(pairs, vectors, gallery),
        }
        if self.settings.untouched:
            scores["drift"] = self._drift(judge)
        if self.settings.matrix_pictures:
            scores |= self._by_stage(judge, references[0], alike)
        return scores

    def _drift(self, judge: ClipEncoder) -> dict[str, float]:
        pairs = self.wanted(BASE)
        texts = judge.texts([question.text for question, _ in pairs])
        before, after = (judge.images(self.pictures_of(state).read(pairs)) for state in (BASE, self.last))
        aligned = [_text_alignment(vectors, texts)["cosine"] for vectors in (before, after)]
        return {
            "clip_t_base": aligned[0],
            "clip_t": aligned[1],
            "clip_t_change": aligned[1] / aligned[0] - 1,
            "likeness_to_base": float((before * after).sum(-1).mean()),
            "cmmd": cmmd(before, after),
        }

    def _by_stage(
        self, judge: ClipEncoder, references: dict[str, Tensor], alike: Mapping[Question, Tensor]
    ) -> dict[str, Any]:
        """Scores the single prompts after every stage: CLIP-I as a matrix, None for a concept without; and identity."""
        matrix, identity = [], []
        for stage in range(self.last + 1):
            pairs = [(each, seed) for each in self.singles(stage) for seed in range(self.settings.matrix_pictures)]
            vectors, learned = None, self.tokens[: stage + 1]
            if pairs:
                vectors = judge.images(self.pictures_of(stage).read(pairs))
            matrix.append([likeness(token, pairs, vectors, references[token]) for token in learned])
            identity.append(identity_scores(pairs, vectors, self.look_alikes.gallery(learned, references, alike)))
        return {"matrix": matrix, **figures_of_matrix(matrix), "identity_by_stage": identity}


def figures_of_matrix(matrix: Sequence[Sequence[float | None]]) -> dict[str, float | None]:
    """Returns forgetting and backward transfer of a matrix; nothing where scores are missing."""
    if any(value is None for row in matrix for value in row):
        return {}
    whole = cast("Sequence[Sequence[float]]", matrix)
    return {
        figure.__name__: figure(whole) for figure in (forgetting_from_best, forgetting_from_learned, backward_transfer)
    }


def reference_vectors(concepts: Iterable[Concept], encoder: ClipEncoder | DinoEncoder) -> dict[str, Tensor]:
    """Encodes the user's pictures of every concept, by token, each (pictures, width)."""
    return {
        concept.token: encoder.images([picture.image for picture in read_concept_pictures(concept)])
        for concept in concepts
    }


def likeness(token: str, pairs: Sequence[Pair], vectors: Tensor | None, references: Tensor) -> float | None:
    """Returns CLIP-I of the pictures that were drawn of one concept alone; None where there are none.

    Args:
        token: token of the concept.
        pairs: what was drawn.
        vectors: vectors of the drawn pictures, (pairs, width).
        references: references of the pictures to compare with, (pictures, width).
    """
    mine = [number for number, (question, _) in enumerate(pairs) if question.tokens == (token,)]
    if not mine or vectors is None:
        return None
    metric = ImageAlignment(**ALL_HERE)
    metric.update(vectors[mine], references)
    return float(metric.compute())


def likeness_within_class(
    concepts: Sequence[Concept], pairs: Sequence[Pair], vectors: Tensor, references: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """Gives, for concepts that share their class word, how alike the pictures of one are to those of each: CLIP-I.

    Where another's is as high as its own, two concepts are drawn alike, or neither is learned.

    Args:
        concepts: concepts of the sequence.
        pairs: what was drawn; single prompts count.
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


def _text_alignment(pictures: Tensor, texts: Tensor) -> dict[str, float]:
    metric = TextAlignment(**ALL_HERE)
    metric.update(pictures, texts)
    return {name: float(value) for name, value in metric.compute().items()}


class Table:
    """Scores by group of prompts, kind of concept and concept.

    A picture of several concepts counts for each of them, once: in its group, and for the kind of each among several.
    Kinds and concepts by themselves are scored on single prompts alone.

    Args:
        kinds: by token.
    """

    def __init__(self, kinds: dict[str, str]) -> None:
        self.kinds = kinds
        self.images: dict[str, dict[tuple[str, str], ImageAlignment]] = {}
        self.texts: dict[tuple[str, str], TextAlignment] = defaultdict(partial(TextAlignment, **ALL_HERE))

    def add(self, pairs: Sequence[Pair], vectors: Tensor, references: Mapping[str, Tensor], judge: ClipEncoder) -> None:
        """Adds pictures by the judge's vectors of them and of the user's pictures by token: CLIP-I and CLIP-T."""
        texts = judge.texts([question.text for question, _ in pairs])
        for (question, _), vector, text in zip(pairs, vectors, texts, strict=True):
            for place in self._places(question):
                self.texts[place].update(vector[None], text[None])
        self.add_images("clip_i", pairs, vectors, references)

    def add_images(self, figure: str, pairs: Sequence[Pair], vectors: Tensor, references: Mapping[str, Tensor]) -> None:
        """Adds the likeness of pictures to the user's pictures by token, under a figure's name."""
        # The mean cosine with several pictures is the cosine with their mean: so every concept weighs the same,
        # however many pictures there are of it.
        centres = {token: vectors.mean(0, keepdim=True) for token, vectors in references.items()}
        means = self.images.setdefault(figure, defaultdict(partial(ImageAlignment, **ALL_HERE)))
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
            aligned = metric.compute()
            found[part][name] = {
                **{figure: float(means[part, name].compute()) for figure, means in self.images.items()},
                "clip_t": float(aligned["cosine"]),
                "clip_score": float(aligned["score"]),
            }
        return found
