"""The protocol: draw what is missing, score every picture, and see what each stage has left of earlier concepts."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from cns_lightning.data.images import read_photos
from cns_lightning.evaluation.cmmd import cmmd
from cns_lightning.evaluation.forgetting import backward_transfer, forgetting_from_best, forgetting_from_learned
from cns_lightning.evaluation.identity import LookAlikes, among_themselves, confusion, identity_scores, within_class
from cns_lightning.evaluation.photos import likeness_of_photos
from cns_lightning.evaluation.pictures import PictureFolder
from cns_lightning.evaluation.questions import Question, questions, untouched_questions
from cns_lightning.evaluation.score_table import ScoreTable, likeness, likeness_within_class
from cns_lightning.storage import sha256_of_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from diffusers import DiffusionPipeline
    from torch import Tensor

    from cns_lightning.evaluation.dino import DinoEncoder
    from cns_lightning.evaluation.metrics import ClipEncoder
    from cns_lightning.evaluation.settings import EvaluationSettings
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.sequences.sequence import Concept
    from cns_lightning.sequences.sequence import Sequence as ConceptSequence

    Pair = tuple[Question, int]
    Loader = Callable[[int], DiffusionPipeline]
    References = tuple[dict[str, Tensor], dict[str, Tensor]]

BASE = -1
"""The state before the first stage."""
LOOK_ALIKES = -2
"""Stands for the pictures of classes among the states; the base model draws them."""


class Evaluation:
    """The evaluation of one run.

    Args:
        folder: folder for the pictures.
        sequence: sequence of the run.
        registry: learned concepts.
        settings: number of pictures and how they are drawn.
    """

    def __init__(
        self, folder: Path, sequence: ConceptSequence, registry: NeuronRegistry, settings: EvaluationSettings
    ) -> None:
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
        drawn_by = self.settings.drawn_by(model)
        return PictureFolder(self.folder / name, drawn_by, self.settings.steps, self.settings.guidance)

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

    def after_stage(self) -> list[Pair]:
        """Lists the pictures by which the last stage is scored as soon as it has ended."""
        asked, count = self.questions(self.last), self.settings.matrix_pictures
        return [(question, seed) for question in asked for seed in range(count)]

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
            progress: called with a line that says how far the drawing is.

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
            judge: model behind CLIP-I and CLIP-T.
            dino: model behind DINO; None leaves it out.
            references: vectors of the user's pictures, from `references`.
        """
        table = ScoreTable(self.sequence.concepts)
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
        aligned = [float((vectors.double() * texts.double()).sum(-1).mean()) for vectors in (before, after)]
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
    return {concept.token: encoder.images(read_photos(concept)) for concept in concepts}
