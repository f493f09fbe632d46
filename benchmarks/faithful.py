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
from typing import TYPE_CHECKING

import torch

from benchmarks.scoring import check_section, command_of, own_prompts, write_section
from cns_lightning.data.images import read_photos
from cns_lightning.evaluation.curves import SHARE
from cns_lightning.evaluation.identity import identity_scores, within_class
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.evaluation.questions import Question
from cns_lightning.miniature import judge_path
from cns_lightning.miniature.world.captions import SCENE_PHRASES
from cns_lightning.miniature.world.concepts import Concept as Drawn
from cns_lightning.miniature.world.concepts import draw_sets, paint_in_scene, paint_in_style
from cns_lightning.miniature.world.sampling import place_things, render
from cns_lightning.miniature.world.vocabulary import COLOURS, KINDS, RGB, SCENES, STYLES, Picture, Thing
from cns_lightning.sequences.sequence import Concept, Sequence, sequence_path
from cns_lightning.sequences.templates import class_training_prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image
    from torch import Tensor

LOOK_ALIKES = 8
"""Pictures of a class in the gallery, as many as `test` draws."""
GROUPS = {"animals and objects": ("animal", "object"), "scenes": ("scene",), "styles": ("style",)}
THING = re.compile(r"\ban? (?:(\S+) )?(" + "|".join(KINDS) + r")\b")
SETS = ("miniature_set1", "miniature_set2", "miniature_set3")


@dataclass(frozen=True)
class Score:
    """Scores of pictures for a concept's prompts.

    Attributes:
        image: CLIP-I.
        text: CLIP-T.
    """

    image: float
    text: float


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
    identity: float = 0.0
    among_photos: float = 0.0
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


def things_of(prompt: str, token: str, thing: Thing | None, random: Random) -> list[Thing]:
    """Returns the things that a prompt asks for, from left to right, at their places.

    Args:
        prompt: one of `concept_prompts`.
        token: token of the concept.
        thing: what stands where the prompt says the token before a class word; None for a scene or a style.
        random: source of places, and of colours that the prompt leaves open.
    """
    found = []
    for colour, kind in THING.findall(prompt):
        if colour == token and thing is not None:
            found.append(thing)
        else:
            found.append(plain_thing(kind, random, COLOURS.get(colour)))
    places = place_things(len(found), random)
    return [replace(each, x=x, y=y, size=size) for each, (x, y, size) in zip(found, places, strict=True)]


def scene_of(prompt: str, random: Random) -> str:
    """Returns the scene of the base world that a prompt names, else any."""
    named = (name for name in SCENES if any(phrase in prompt for phrase in SCENE_PHRASES[name]))
    return next(named, None) or random.choice(SCENES)


def plain_thing(kind: str, random: Random, colour: RGB | None = None) -> Thing:
    """Returns a thing of a class without pattern or accessory, in a colour of the base world."""
    return Thing(kind, colour or random.choice(list(COLOURS.values())), "plain", (255, 255, 255), (), 0.0, 0.0, 0.0)


def paint(prompt: str, token: str, concept: Drawn | None, random: Random) -> Image.Image:
    """Renders a picture as a prompt asks.

    Args:
        prompt: one of `concept_prompts`.
        token: token of the concept.
        concept: what the token stands for; None for the class word, of which a scene or style says nothing.
        random: source of all that the prompt leaves open.
    """
    things = things_of(prompt, token, concept.thing if concept is not None else None, random)
    scene, seeds = scene_of(prompt, random), (random.getrandbits(31), random.getrandbits(31))
    if concept is not None and concept.turn is not None:
        return paint_in_scene(concept.name.removesuffix("_scene"), concept.turn, things, seeds[0])
    if concept is not None and concept.inks is not None:
        return paint_in_style(concept.name.removesuffix("_style"), concept.inks, scene, things, seeds)
    style = next((style for style in STYLES[1:] if f" {style} style" in prompt), "photo")
    return render(Picture(scene, style, tuple(things), None, seeds[0]))


def measure(
    judge: ClipEncoder, sequence: Sequence, concept: Concept, drawn: Drawn, pictures: int
) -> tuple[Row, Tensor]:
    """Scores rendered pictures of one concept, but for their identity; returns the vectors of the perfect ones, too.

    Args:
        judge: model behind the scores.
        sequence: sequence of the concept.
        concept: one of the miniature's.
        drawn: how its photos were made.
        pictures: how many are rendered for every prompt.
    """
    prompts = own_prompts(sequence, concept)
    photos = judge.images(read_photos(concept))
    texts = judge.texts([prompt.replace(f"{concept.token} ", "") for prompt in prompts]).repeat_interleave(pictures, 0)
    random = Random(f"faithful {concept.images}")
    asked = [(prompt, random.getrandbits(31)) for prompt in prompts for _ in range(pictures)]

    def score(shown: Drawn | None) -> tuple[Score, Tensor]:
        vectors = judge.images([paint(prompt, concept.token, shown, Random(seed)) for prompt, seed in asked])
        return Score(float((vectors @ photos.T).mean()), float((vectors * texts).sum(-1).mean())), vectors

    among = photos @ photos.T
    others = ~torch.eye(len(photos), dtype=torch.bool)
    (class_word, _), (perfect, vectors) = score(None), score(drawn)
    return Row(Path(concept.images).name, concept.kind, float(among[others].mean()), class_word, perfect), vectors


def measure_set(judge: ClipEncoder, sequence: Sequence, drawn: list[Drawn], pictures: int) -> list[Row]:
    """Scores rendered pictures of every concept of a set.

    Args:
        judge: model behind the scores.
        sequence: a set of the miniature.
        drawn: how the photos of its concepts were made.
        pictures: how many are rendered for every prompt.
    """
    gallery = {concept.token: judge.images(read_photos(concept)) for concept in sequence.concepts}
    found, random = {}, Random(f"faithful {sequence.name}")
    for concept, source in zip(sequence.concepts, drawn, strict=True):
        found[concept.token] = measure(judge, sequence, concept, source, pictures)
        label = f"any {concept.class_word}"
        if label not in gallery:
            prompt = class_training_prompt(concept)
            gallery[label] = judge.images([paint(prompt, "", None, random) for _ in range(LOOK_ALIKES)])
    pairs = [
        (Question("single", number, "", "", (token,)), 0)
        for token, (_, vectors) in found.items()
        for number in range(len(vectors))
    ]
    vectors = torch.cat([each for _, each in found.values()])
    photos = {concept.token: gallery[concept.token] for concept in sequence.concepts}
    identity, among_photos = (identity_scores(pairs, vectors, each)["concepts"] for each in (gallery, photos))
    classes = {concept.token: concept.class_word for concept in sequence.concepts}
    of_class = within_class(classes, pairs, vectors, photos)["concepts"]
    return [
        replace(
            row,
            identity=identity[token]["top1"],
            among_photos=among_photos[token]["top1"],
            within_class=of_class[token]["top1"] if token in of_class else None,
        )
        for token, (row, _) in found.items()
    ]


def document(sets: dict[str, list[Row]], command: str) -> str:
    """Returns the section of the document; rows by set."""
    rows = [row for of_set in sets.values() for row in of_set]
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
    lines += [_line(f"**{name.removeprefix('miniature_')}**", of_set) for name, of_set in sets.items()]
    return "\n".join([*lines, _line("**all**", rows), ""])


def _line(name: str, rows: list[Row]) -> str:
    def mean(value: Callable[[Row], float]) -> float:
        return statistics.fmean(value(row) for row in rows)

    of_class = [row.within_class for row in rows if row.within_class is not None]
    image, text = mean(lambda row: row.class_word.image), mean(lambda row: row.class_word.text)
    return (
        f"| {name} | {mean(lambda row: row.photos):.3f} | {image:.3f} / {text:.3f} "
        f"| {mean(lambda row: row.perfect.image):.3f} / {mean(lambda row: row.perfect.text):.3f} "
        f"| {mean(lambda row: row.kept):.2f} | {mean(lambda row: row.way):.2f} | {mean(lambda row: row.identity):.2f} "
        f"| {mean(lambda row: row.among_photos):.2f} | {f'{statistics.fmean(of_class):.2f}' if of_class else ''} |"
    )


def main() -> None:
    """Reads the command line, measures, and writes the table into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="document whose section `faithful` is replaced")
    parser.add_argument("--pictures", type=int, default=4, help="pictures rendered for every prompt")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, "faithful")
    judge = ClipEncoder(judge_path())
    sets = {
        name: measure_set(judge, Sequence.read(sequence_path(name)), drawn, arguments.pictures)
        for name, drawn in zip(SETS, draw_sets(len(SETS), 0), strict=True)
    }
    text = document(sets, command_of("benchmarks.faithful", sys.argv[1:]))
    print(text)
    if arguments.out:
        write_section(arguments.out, "faithful", text)


if __name__ == "__main__":
    main()
