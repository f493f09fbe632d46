"""CLIP-I against CLIP-T over a run's training steps: the points of the curve, and the figures that are read off it.

A method that trains longer shows more of a concept and follows less of a prompt, so its figures after one number of
steps say little: another method may have the same ones a few steps earlier. The curve starts at the class word on the
base model, 0 steps. Source: Custom Diffusion (arXiv 2212.04488), figure 8.
"""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cns_lightning.data.module import steps_of_stage
from cns_lightning.errors import UserError
from cns_lightning.evaluation.evaluate import Evaluation
from cns_lightning.evaluation.pictures import PictureFolder
from cns_lightning.evaluation.score_table import ScoreTable
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from diffusers import DiffusionPipeline
    from torch import Tensor

    from cns_lightning.evaluation.evaluate import Pair
    from cns_lightning.evaluation.metrics import ClipEncoder
    from cns_lightning.runs.folder import RunFolder

    Point = tuple[float, float]
    Figures = dict[str, dict[str, float]]

GROUPS = {"single": ("single",), "several": ("double", "triple")}
"""Groups of prompts whose means make one figure, by the name of the curve."""
PREFIXES = {"single": "single", "several": "multi"}
"""How the columns of each curve begin."""
POINT = ("clip_i", "clip_t", "all_there")
"""Figures of a point; the last of several concepts alone."""
SHARE = 0.9
"""Of the class word's CLIP-T: what is left of the prompt where CLIP-I is read off."""
HEADLINE = ("single_clip_i_at_90", "multi_clip_i_at_90", "single_way_at_90", "single_area", "multi_area")
_THRESHOLDS = 300


# ---- what is read off a curve ---------------------------------------------------------------------------------------


def image_at_text(points: Sequence[Point], text: float) -> float | None:
    """Returns the highest CLIP-I of a curve where its CLIP-T is high enough; None where it nowhere is.

    Args:
        points: (CLIP-T, CLIP-I) in the order of steps, joined by straight lines.
        text: the least CLIP-T.
    """
    found = [image for words, image in points if words >= text]
    for (words, image), (next_words, next_image) in pairwise(points):
        if (words < text) != (next_words < text):
            part = (text - words) / (next_words - words)
            found.append(image + part * (next_image - image))
    return max(found) if found else None


def area(points: Sequence[Point], best_text: float, shares: tuple[float, float] = (0.7, 1.0)) -> float | None:
    """Computes the mean of `image_at_text` over thresholds from one share of a CLIP-T to another.

    The mean over 300 thresholds, the centres of equal intervals; None if the curve nowhere reaches one of them.

    Args:
        points: (CLIP-T, CLIP-I) in the order of steps; the first has ``best_text``.
        best_text: CLIP-T of the class word.
        shares: shares of it, the least and the most.
    """
    low, high = shares
    width = (high - low) / _THRESHOLDS
    thresholds = [share_of(best_text, low + (number + 0.5) * width) for number in range(_THRESHOLDS)]
    values = [image_at_text(points, threshold) for threshold in thresholds]
    return None if None in values else statistics.fmean(value for value in values if value is not None)


def share_of(text: float, share: float) -> float:
    """Computes a share of a CLIP-T, for shares up to 1; of a negative one what lies as far below it."""
    return text - (1 - share) * abs(text)


def point_of(groups: Mapping[str, Mapping[str, float]]) -> Figures:
    """Returns CLIP-I, CLIP-T and ``all_there`` for one concept and for several, of scores by group of prompts.

    Args:
        groups: ``single``, ``double``, ``triple``, as `ScoreTable` has them; a curve without any of its groups is
            left out.
    """
    found: Figures = {}
    for name, parts in GROUPS.items():
        there = [groups[part] for part in parts if part in groups]
        if there:
            shared = [figure for figure in POINT if all(figure in each for each in there)]
            found[name] = {figure: statistics.fmean(each[figure] for each in there) for figure in shared}
    return found


def path_of(curve: Sequence[Mapping[str, Any]], start: Mapping[str, Any], group: str) -> list[Point]:
    """Returns the points (CLIP-T, CLIP-I) of a curve in the order of steps, the class word first.

    Args:
        curve: ``scores["curve"]`` of a run.
        start: figures of the class word, from `point_of`.
        group: ``single`` or ``several``; all of them must have it.
    """
    return [(each[group]["clip_t"], each[group]["clip_i"]) for each in (start, *curve)]


def headline(
    curve: Sequence[Mapping[str, Any]], start: Mapping[str, Any], photos: float | None = None
) -> dict[str, float | None]:
    """Computes the figures of a curve, `HEADLINE`; None where the sequence has no such prompts.

    Args:
        curve: ``scores["curve"]`` of a run; empty for the class word itself.
        start: figures of the class word, from `point_of`.
        photos: CLIP-I of the user's photos among themselves; None leaves the way to it out.
    """
    found: dict[str, float | None] = dict.fromkeys(HEADLINE)
    for group in start:
        points, text = path_of(curve, start, group), start[group]["clip_t"]
        found[f"{PREFIXES[group]}_clip_i_at_90"] = image_at_text(points, share_of(text, SHARE))
        found[f"{PREFIXES[group]}_area"] = area(points, text)
    image = found["single_clip_i_at_90"]
    if image is not None and photos is not None and photos > start["single"]["clip_i"]:
        found["single_way_at_90"] = (image - start["single"]["clip_i"]) / (photos - start["single"]["clip_i"])
    return found


# ---- its points -----------------------------------------------------------------------------------------------------


def complete_snapshots(folder: RunFolder, registry: NeuronRegistry) -> dict[int, NeuronRegistry]:
    """Opens the snapshots that hold all concepts of a run, by steps, ascending; of others nothing is drawn.

    A snapshot may hold one concept more, that of the stage that was running.

    Args:
        folder: run folder.
        registry: concepts that the run has learned.

    Raises:
        UserError: if files of a snapshot are missing or damaged.
    """
    found = {}
    for steps in folder.snapshot_steps():
        snapshot = NeuronRegistry.load(folder.snapshot(steps))
        if snapshot.tokens[: len(registry.tokens)] == registry.tokens:
            snapshot.truncate(len(registry.tokens))
            found[steps] = snapshot
    return found


def _steps_of_stages(folder: RunFolder, evaluation: Evaluation) -> int:
    """Returns the optimizer steps of a run's longest stage."""
    data = RunConfig.read(folder).data
    given = data["steps"], data.get("steps_per_picture")
    return max(steps_of_stage(*given, concept) for concept in evaluation.sequence.concepts)


class Curve:
    """Draws and scores the points of one run's curve; has no points where there are no snapshots.

    Args:
        evaluation: evaluation of the finished run.
        snapshots: numbers of steps, from `complete_snapshots`.
        steps: optimizer steps of a stage, the last point.
        pictures: how many are drawn for every prompt and point; the seeds are 0, 1, ...
    """

    def __init__(
        self, evaluation: Evaluation, snapshots: Mapping[int, NeuronRegistry], steps: int, pictures: int
    ) -> None:
        self.evaluation, self.pictures = evaluation, pictures if snapshots else 0
        asked = evaluation.questions(evaluation.last)
        self.pairs: list[Pair] = [(question, seed) for question in asked for seed in range(self.pictures)]
        self.places: dict[int, PictureFolder] = {}
        settings = evaluation.settings
        for number, registry in snapshots.items() if self.pairs else ():
            own = Evaluation(evaluation.folder, evaluation.sequence, registry, settings)
            model, place = own.pictures_of(own.last).model, evaluation.folder / f"step-{number:05d}"
            self.places[number] = PictureFolder(place, model, settings.steps, settings.guidance)
        self.last = steps
        if self.places:
            self.places[steps] = evaluation.pictures_of(evaluation.last)

    @classmethod
    def of(cls, folder: RunFolder, evaluation: Evaluation, pictures: int | None) -> Curve:
        """Makes the curve of a run.

        Args:
            folder: run folder.
            evaluation: evaluation of the finished run.
            pictures: number of pictures of every prompt and point; None takes 1 where there are snapshots.

        Raises:
            UserError: if pictures are asked for and no snapshot holds all concepts, or a snapshot is damaged.
        """
        snapshots = complete_snapshots(folder, evaluation.registry) if pictures != 0 else {}
        if pictures and not snapshots:
            problem = f"is {pictures}, and {folder.snapshots} has no snapshot of all {len(evaluation.tokens)} concepts"
            raise UserError("--curve-pictures", problem, "Learn the run with --snapshots.steps, or leave it out")
        stage_steps = _steps_of_stages(folder, evaluation) if snapshots else 0
        return cls(evaluation, snapshots, stage_steps, 1 if pictures is None else pictures)

    def draw(
        self,
        load: Callable[[int | None], DiffusionPipeline],
        share: tuple[int, int] = (0, 1),
        progress: Callable[[str], None] | None = None,
    ) -> None:
        """Draws the pictures that are missing, or this process's share of them.

        Args:
            load: returns the pipeline of a snapshot by its steps, and for None that of the finished run.
            share: number of this process, and how many there are.
            progress: called with a line that says how far the drawing is.

        Raises:
            UserError: if pictures cannot be written.
        """
        number, count = share
        for steps, place in self.places.items():
            missing = place.missing(self.pairs[number::count])
            if not missing:
                continue

            def tell(done: int, total: int, name: str = place.folder.name) -> None:
                if progress is not None:
                    progress(f"{name}: picture {done} of {total}")

            pipe = load(None if steps == self.last else steps)
            place.draw(pipe, missing, self.evaluation.settings.batch_size, tell)

    def scores(self, judge: ClipEncoder, references: Mapping[str, Tensor]) -> dict[str, Any]:
        """Scores the pictures, all of which must be there.

        Args:
            judge: model behind CLIP-I and CLIP-T.
            references: its vectors of the user's pictures by token, each (pictures, width).

        Returns:
            ``curve_pictures`` and ``curve``: for each number of steps, ascending, the figures of `point_of`; nothing
            where there is no curve.
        """
        if not self.places:
            return {}
        points = []
        for steps, place in self.places.items():
            table = ScoreTable(self.evaluation.sequence.concepts)
            table.add(self.pairs, judge.images(place.read(self.pairs)), references, judge)
            points.append({"steps": steps, **point_of(table.result()["groups"])})
        return {"curve_pictures": self.pictures, "curve": points}
