"""Bounds of every comparison: what the base model draws when it is told the class word, or all that words can say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cns_lightning.evaluation.curves import headline, point_of
from cns_lightning.evaluation.evaluate import reference_vectors
from cns_lightning.evaluation.identity import LookAlikes, confusion, identity_scores
from cns_lightning.evaluation.photos import likeness_of_photos
from cns_lightning.evaluation.pictures import PictureFolder
from cns_lightning.evaluation.questions import described, questions
from cns_lightning.evaluation.score_table import ScoreTable, likeness_within_class

if TYPE_CHECKING:
    from pathlib import Path

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.evaluation.dino import DinoEncoder
    from cns_lightning.evaluation.metrics import ClipEncoder
    from cns_lightning.evaluation.settings import EvaluationSettings
    from cns_lightning.sequences.sequence import Sequence


def base_model_scores(
    folder: Path,
    sequence: Sequence,
    base: BaseModel,
    settings: EvaluationSettings,
    judge: ClipEncoder,
    dino: DinoEncoder | None = None,
    curve_pictures: int = 0,
    in_words: bool = False,
) -> dict[str, Any]:
    """Draws every prompt without tokens on the base model, and scores it as a run is scored.

    With class words in place of tokens this is the highest CLIP-T that can be expected, and a CLIP-I that every method
    should exceed; with the concepts' descriptions it is what a user could have had without learning anything.

    Args:
        folder: folder for the pictures.
        sequence: whose prompts are drawn.
        base: the base model.
        settings: settings of the runs' own evaluation.
        judge: judge of the runs.
        dino: DINO model of the runs; None leaves DINO out.
        curve_pictures: pictures of every prompt for ``curve_start``, where the runs' curves start, and for what is
            read off a curve that stays there; 0 leaves both out.
        in_words: whether the concepts' descriptions stand in place of their tokens, or their class words.

    Source: Mix-of-Show (arXiv 2305.18292), Table 1; docs/methods.md 2.2.
    """
    tokens = [concept.token for concept in sequence.concepts]
    pairs = [
        (replace(question, prompt=described(question.prompt, sequence) if in_words else question.text), seed)
        for question in questions(sequence, tokens)
        for seed in range(max(settings.pictures, curve_pictures))
    ]
    place = PictureFolder(folder, base.fingerprint(), settings.steps, settings.guidance)
    look_alikes, pipe = LookAlikes(folder, base.fingerprint(), sequence.concepts, settings), base.pipeline()
    for each, wanted in ((place, pairs), (look_alikes.place, look_alikes.pairs(tokens))):
        each.draw(pipe, each.missing(wanted), settings.batch_size)
    references = reference_vectors(sequence.concepts, judge)
    start: dict[str, Any] = {}
    if curve_pictures:
        table, first = ScoreTable(sequence.concepts), [pair for pair in pairs if pair[1] < curve_pictures]
        table.add(first, judge.images(place.read(first)), references, judge)
        point = point_of(table.result()["groups"])
        photos = likeness_of_photos(sequence.concepts, references)["clip_i"]
        start = {"curve_start": point, **headline([], point, photos)}
    pairs = [pair for pair in pairs if pair[1] < settings.pictures]
    table, pictures = ScoreTable(sequence.concepts), place.read(pairs)
    vectors = judge.images(pictures)
    table.add(pairs, vectors, references, judge)
    if dino is not None:
        table.add_images("dino", pairs, dino.images(pictures), reference_vectors(sequence.concepts, dino))
    gallery = look_alikes.gallery(tokens, references, look_alikes.encode(tokens, judge))
    return {
        **table.result(),
        **start,
        "same_class": likeness_within_class(sequence.concepts, pairs, vectors, references),
        "identity": {**identity_scores(pairs, vectors, gallery), "confusion": confusion(pairs, vectors, gallery)},
    }
