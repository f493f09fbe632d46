"""Measures what perfect pictures score: a section of docs/miniature.md beside which every other figure is read.

The world's own renderer, not a model, draws each concept as each of its prompts asks, once exactly as in its photos and
once with what the class word says of it: a plain thing of the class in a base colour, any scene, no style. CLIP-T
compares with a prompt that says no more than the class word, so a picture that shows the concept as it is loses some of
it without losing anything of the prompt. Identity is that of `test`, the look-alikes rendered as well.

``python -m benchmarks.faithful --out docs/miniature.md``  (some ten seconds)
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.scoring import check_section, command_of, write_section
from cns_lightning.data.images import read_photos
from cns_lightning.evaluation.curves import SHARE, point_of
from cns_lightning.evaluation.identity import identity_scores, within_class
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.evaluation.questions import questions
from cns_lightning.evaluation.score_table import ScoreTable
from cns_lightning.miniature import judge_path
from cns_lightning.miniature.world.captions import SCENE_PHRASES
from cns_lightning.miniature.world.concepts import Concept as Drawn
from cns_lightning.miniature.world.concepts import draw_sets, paint_in_scene, paint_in_style
from cns_lightning.miniature.world.sampling import place_things, render
from cns_lightning.miniature.world.vocabulary import COLOURS, KINDS, RGB, SCENES, STYLES, Picture, Thing
from cns_lightning.sequences.sequence import Sequence, sequence_path
from cns_lightning.sequences.templates import class_training_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL import Image
    from torch import Tensor

LOOK_ALIKES = 8
"""Pictures of a class in the gallery, as many as `test` draws."""
GROUPS = {"animals and objects": ("animal", "object"), "scenes": ("scene",), "styles": ("style",)}
THING = re.compile(r"\ban? (?:(\S+) )?(" + "|".join(KINDS) + r")\b")
SETS = ("miniature_set1", "miniature_set2", "miniature_set3")
SEARCH = "miniature_search"


@dataclass(frozen=True)
class Score:
    """Scores of pictures for a concept's prompts.

    Attributes:
        image: CLIP-I.
        text: CLIP-T.
        there: share of the pictures that show all things asked for; None where no two are.
    """

    image: float
    text: float
    there: float | None = None

    @classmethod
    def of(cls, scores: Mapping[str, float]) -> Score:
        """Takes them from a row of a score table."""
        return cls(scores["clip_i"], scores["clip_t"], scores.get("all_there"))


@dataclass(frozen=True)
class Row:
    """What is measured of one concept.

    Attributes:
        name: folder of its photos.
        kind: animal, object, scene or style.
        photos: CLIP-I of its photos among themselves.
        class_word, perfect: scores of plain things of its class and of pictures as they should be.
        identity: share of the perfect pictures whose nearest picture is a photo of the concept, among the photos of
            the whole set and rendered pictures of its classes.
        among_photos: the same among the photos alone.
        within_class: the same among the photos of concepts that share its class word; None where none does.
    """

    name: str
    kind: str
    photos: float
    class_word: Score
    perfect: Score
    identity: float | None = None
    among_photos: float | None = None
    within_class: float | None = None

    @property
    def kept(self) -> float:
        """Returns the share of the class word's CLIP-T that perfect pictures have."""
        return self.perfect.text / self.class_word.text

    @property
    def way(self) -> float:
        """Returns the way of perfect pictures at `SHARE` of the class word's CLIP-T.

        On the straight line from the class word's pictures to the perfect ones, where those have less.
        """
        whole = (self.perfect.image - self.class_word.image) / (self.photos - self.class_word.image)
        return whole * min(1.0, (1 - SHARE) / (1 - self.kept) if self.kept < 1 else 1.0)


@dataclass(frozen=True)
class Measured:
    """What is measured of one sequence: its concepts, and its prompts of several concepts for either."""

    rows: list[Row]
    class_word: Score
    perfect: Score


def things_of(prompt: str, shown: Mapping[str, Drawn], random: Random) -> list[Thing]:
    """Returns the things that a prompt asks for, from left to right, at their places.

    Args:
        prompt: one of `concept_prompts`.
        shown: by token, what stands where the prompt says a token before a class word; other tokens say nothing.
        random: source of places, and of colours that the prompt leaves open.
    """
    found = []
    for word, kind in THING.findall(prompt):
        thing = shown[word].thing if word in shown else None
        found.append(thing or plain_thing(kind, random, COLOURS.get(word)))
    places = place_things(len(found), random)
    return [replace(each, x=x, y=y, size=size) for each, (x, y, size) in zip(found, places, strict=True)]


def scene_of(prompt: str, random: Random) -> str:
    """Returns the scene of the base world that a prompt names, else any."""
    named = (name for name in SCENES if any(phrase in prompt for phrase in SCENE_PHRASES[name]))
    return next(named, None) or random.choice(SCENES)


def plain_thing(kind: str, random: Random, colour: RGB | None = None) -> Thing:
    """Returns a thing of a class without pattern or accessory, in a colour of the base world."""
    return Thing(kind, colour or random.choice(list(COLOURS.values())), "plain", (255, 255, 255), (), 0.0, 0.0, 0.0)


def paint(prompt: str, shown: Mapping[str, Drawn], random: Random) -> Image.Image:
    """Renders a picture as a prompt asks.

    Args:
        prompt: one of `concept_prompts`.
        shown: what tokens stand for; of others the class word alone counts, which says nothing of a scene or style.
        random: source of all that the prompt leaves open.
    """
    things = things_of(prompt, shown, random)
    scene, seeds = scene_of(prompt, random), (random.getrandbits(31), random.getrandbits(31))
    for concept in (each for token, each in shown.items() if token in prompt):
        if concept.turn is not None:
            return paint_in_scene(concept.name.removesuffix("_scene"), concept.turn, things, seeds[0])
        if concept.inks is not None:
            return paint_in_style(concept.name.removesuffix("_style"), concept.inks, scene, things, seeds)
    style = next((style for style in STYLES[1:] if f" {style} style" in prompt), "photo")
    return render(Picture(scene, style, tuple(things), None, seeds[0]))


def measure(judge: ClipEncoder, sequence: Sequence, drawn: Mapping[str, Drawn], pictures: int) -> Measured:
    """Scores rendered pictures for every prompt of a sequence as `test` scores drawn ones.

    Args:
        judge: model behind the scores.
        sequence: a sequence of the miniature's concepts.
        drawn: how the photos of its concepts were made, by token.
        pictures: how many are rendered for every prompt.
    """
    photos = {concept.token: judge.images(read_photos(concept)) for concept in sequence.concepts}
    pairs = [(question, seed) for question in questions(sequence, drawn) for seed in range(pictures)]
    gallery, random = dict(photos), Random(f"faithful {sequence.name}")
    for concept in sequence.concepts:
        if (label := f"any {concept.class_word}") not in gallery:
            plain = [paint(class_training_prompt(concept), {}, random) for _ in range(LOOK_ALIKES)]
            gallery[label] = judge.images(plain)

    def score(shown: Mapping[str, Drawn]) -> tuple[dict[str, Any], Tensor]:
        asked = [(question.prompt, Random(f"faithful {question.prompt} {seed}")) for question, seed in pairs]
        vectors = judge.images([paint(prompt, shown, random) for prompt, random in asked])
        table = ScoreTable(sequence.concepts)
        table.add(pairs, vectors, photos, judge)
        return table.result(), vectors

    (class_word, _), (perfect, vectors) = score({}), score(drawn)
    classes = {concept.token: concept.class_word for concept in sequence.concepts}
    among = among_each_other(photos)
    found = [identity_scores(pairs, vectors, each)["concepts"] for each in (gallery, photos)]
    found.append(within_class(classes, pairs, vectors, photos)["concepts"])
    rows = [
        Row(
            Path(concept.images).name,
            concept.kind,
            among[concept.token],
            Score.of(class_word["concepts"][concept.token]),
            Score.of(perfect["concepts"][concept.token]),
            *(each[concept.token]["top1"] if concept.token in each else None for each in found),
        )
        for concept in sequence.concepts
    ]
    return Measured(rows, *(Score.of(point_of(each["groups"])["several"]) for each in (class_word, perfect)))


def among_each_other(photos: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the CLIP-I of photos among themselves, by token."""
    return {
        token: float((vectors @ vectors.T)[~torch.eye(len(vectors), dtype=torch.bool)].mean())
        for token, vectors in photos.items()
    }


def document(sets: dict[str, Measured], command: str) -> str:
    """Returns the section of the document; what was measured by name of the sequence."""
    rows = [row for name in SETS for row in sets[name].rows]
    lines = [
        f"`{command}`",
        "",
        "| concept | photos among themselves | class word, rendered | perfect pictures | CLIP-T, of the class word's "
        "| way | identity | among photos | in its class |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(row.name.replace("_", " "), [row]) for row in rows]
    for name, kinds in GROUPS.items():
        lines.append(_line(f"**{name}**", [row for row in rows if row.kind in kinds]))
    lines += [_line(f"**{name.removeprefix('miniature_')}**", each.rows) for name, each in sets.items()]
    lines += [_line("**sets 1 to 3**", rows), ""]
    lines += [
        "| prompts of two and three concepts | class word, rendered | perfect pictures | CLIP-T, of the class word's "
        "| all there: class word | perfect pictures |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name.removeprefix('miniature_')} | {each.class_word.image:.3f} / {each.class_word.text:.3f} "
        f"| {each.perfect.image:.3f} / {each.perfect.text:.3f} | {each.perfect.text / each.class_word.text:.2f} "
        f"| {_share(each.class_word.there)} | {_share(each.perfect.there)} |"
        for name, each in sets.items()
    ]
    return "\n".join([*lines, ""])


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _line(name: str, rows: list[Row]) -> str:
    def mean(value: Callable[[Row], float | None]) -> str:
        known = [each for each in map(value, rows) if each is not None]
        return f"{statistics.fmean(known):.2f}" if known else ""

    image, text = (statistics.fmean(getattr(row.class_word, name) for row in rows) for name in ("image", "text"))
    best = [statistics.fmean(getattr(row.perfect, name) for row in rows) for name in ("image", "text")]
    return (
        f"| {name} | {statistics.fmean(row.photos for row in rows):.3f} | {image:.3f} / {text:.3f} "
        f"| {best[0]:.3f} / {best[1]:.3f} | {mean(lambda row: row.kept)} | {mean(lambda row: row.way)} "
        f"| {mean(lambda row: row.identity)} | {mean(lambda row: row.among_photos)} "
        f"| {mean(lambda row: row.within_class)} |"
    )


def main() -> None:
    """Reads the command line, measures, and writes the table into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="document whose section `faithful` is replaced")
    parser.add_argument("--pictures", type=int, default=4, help="pictures rendered for every prompt")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, "faithful")
    judge, sets = ClipEncoder(judge_path()), {}
    by_folder = {each.name: each for of_set in draw_sets(len(SETS), 0) for each in of_set}
    for name in (*SETS, SEARCH):
        sequence = Sequence.read(sequence_path(name))
        drawn = {concept.token: by_folder[Path(concept.images).name] for concept in sequence.concepts}
        sets[name] = measure(judge, sequence, drawn, arguments.pictures)
    text = document(sets, command_of("benchmarks.faithful", sys.argv[1:]))
    print(text)
    if arguments.out:
        write_section(arguments.out, "faithful", text)


if __name__ == "__main__":
    main()
