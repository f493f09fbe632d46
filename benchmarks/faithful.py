"""Measures what perfect pictures score: a section of docs/miniature.md beside which every other figure is read.

The world's own renderer, not a model, draws each animal and object as each of its prompts asks, once exactly as in its
photos and once as a plain thing of its class in a base colour. CLIP-T compares with a prompt that says no more than the
class word, so a picture that shows the concept as it is loses some of it without losing anything of the prompt.

``python -m benchmarks.faithful --out docs/miniature.md``  (some ten seconds)
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch

from benchmarks.scoring import check_section, command_of, own_prompts, write_section
from cns_lightning.data.images import read_photos
from cns_lightning.evaluation.curves import SHARE
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.miniature import judge_path
from cns_lightning.miniature.world.captions import SCENE_PHRASES
from cns_lightning.miniature.world.concepts import draw_sets
from cns_lightning.miniature.world.sampling import place_things, render
from cns_lightning.miniature.world.vocabulary import COLOURS, SCENES, STYLES, Picture, Thing
from cns_lightning.sequences.sequence import Concept, Sequence, sequence_path

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
    """What is measured of one concept; ``photos`` is the CLIP-I of its photos among themselves."""

    name: str
    photos: float
    class_word: Score
    perfect: Score

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


def asked_for(prompt: str, thing: Thing, random: Random) -> Picture:
    """Returns the record of a picture that shows a thing as a prompt asks.

    Args:
        prompt: one of `concept_prompts`: a place, a style, or one coloured thing beside it.
        thing: what stands at the concept's place.
        random: source of places and chances.
    """
    words = prompt.split()
    scene = next((name for name in SCENES if any(phrase in prompt for phrase in SCENE_PHRASES[name])), "")
    style = words[-2] if words[-1] == "style" and words[-2] in STYLES else "photo"
    things = [thing]
    if "next to" in prompt:
        colour, kind = words[-2:]
        things.append(Thing(kind, COLOURS[colour], "plain", (255, 255, 255), (), 0.0, 0.0, 0.0))
    places = place_things(len(things), random)
    placed = [replace(each, x=x, y=y, size=size) for each, (x, y, size) in zip(things, places, strict=True)]
    return Picture(scene or random.choice(SCENES), style, tuple(placed), None, random.getrandbits(31))


def measure(judge: ClipEncoder, sequence: Sequence, concept: Concept, thing: Thing, pictures: int) -> Row:
    """Scores rendered pictures of one concept.

    Args:
        judge: model behind the scores.
        sequence: sequence of the concept.
        concept: an animal or object of the miniature's world.
        thing: what its photos show.
        pictures: how many are rendered for every prompt.
    """
    prompts = own_prompts(sequence, concept)
    photos = judge.images(read_photos(concept))
    texts = judge.texts([prompt.replace(f"{concept.token} ", "") for prompt in prompts]).repeat_interleave(pictures, 0)
    random = Random(f"faithful {concept.images}")
    colours = [random.choice(list(COLOURS.values())) for _ in range(len(texts))]
    seeds = [random.getrandbits(31) for _ in range(len(texts))]
    plain = [Thing(thing.kind, colour, "plain", (255, 255, 255), (), 0.0, 0.0, 0.0) for colour in colours]

    def score(things: list[Thing]) -> Score:
        asked = [prompt for prompt in prompts for _ in range(pictures)]
        drawn = [
            render(asked_for(prompt, each, Random(seed)))
            for prompt, each, seed in zip(asked, things, seeds, strict=True)
        ]
        vectors = judge.images(drawn)
        return Score(float((vectors @ photos.T).mean()), float((vectors * texts).sum(-1).mean()))

    among = photos @ photos.T
    others = ~torch.eye(len(photos), dtype=torch.bool)
    return Row(Path(concept.images).name, float(among[others].mean()), score(plain), score([thing] * len(texts)))


def document(rows: list[Row], command: str) -> str:
    """Returns the section of the document."""
    lines = [
        f"`{command}`",
        "",
        "| concept | photos among themselves | class word, rendered | perfect pictures | CLIP-T, of the class word's "
        "| way |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.name.replace('_', ' ')} | {row.photos:.3f} | {row.class_word.image:.3f} / {row.class_word.text:.3f} "
        f"| {row.perfect.image:.3f} / {row.perfect.text:.3f} | {row.kept:.2f} | {row.way:.2f} |"
        for row in rows
    ]
    kept, way = (statistics.fmean(getattr(row, name) for row in rows) for name in ("kept", "way"))
    return "\n".join([*lines, f"| mean | | | | {kept:.3f} | {way:.3f} |", ""])


def main() -> None:
    """Reads the command line, measures, and writes the table into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="document whose section `faithful` is replaced")
    parser.add_argument("--pictures", type=int, default=4, help="pictures rendered for every prompt")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, "faithful")
    judge, rows = ClipEncoder(judge_path()), []
    for name, drawn in zip(SETS, draw_sets(len(SETS), 0), strict=True):
        sequence = Sequence.read(sequence_path(name))
        for concept, source in zip(sequence.concepts, drawn, strict=True):
            if source.thing is not None:
                rows.append(measure(judge, sequence, concept, source.thing, arguments.pictures))
    text = document(rows, command_of("benchmarks.faithful", sys.argv[1:]))
    print(text)
    if arguments.out:
        write_section(arguments.out, "faithful", text)


if __name__ == "__main__":
    main()
