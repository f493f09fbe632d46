"""Draws two concepts in two boxes: is each box's crop nearer its own concept, with regions and without?

Half of the pictures show two concepts of one class (two rabbits, two dogs, two fish), where the class tells nothing.
A crop is nearer its own concept when its mean likeness to that one's photos is higher than to the other's. Writes the
section `regions` of a document, and a sheet beside it.

``python -m benchmarks.regions --work runs/regions --out docs/regions.md``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from benchmarks.scoring import GUIDANCE, check_section, learn, write_section
from cns_lightning import load_pipeline
from cns_lightning.data.images import read_photos
from cns_lightning.diffusion.regions import Region
from cns_lightning.diffusion.sampling import generate
from cns_lightning.diffusion.sheets import grid
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.miniature import judge_path
from cns_lightning.sequences.sequence import Concept, Sequence, sequence_path

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image
    from torch import Tensor

BOXES = ((0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0, 1.0))
"""Left and right, where two things stand side by side in the miniature's pictures."""
TWINS = ("rabbit", "dog", "fish")
"""Classes of which the three sets have two concepts."""
GOAL = 0.9
"""Share of the crops that should be nearer their own concept, with regions."""
SHOWN = 4
"""Pictures of a pair on the sheet, without and with regions."""
TIMED, ROUNDS = 16, 3
"""Pictures that are drawn at once to be timed, and how often."""


@dataclass(frozen=True)
class Pair:
    """Two concepts to draw side by side."""

    left: Concept
    right: Concept

    @property
    def is_of_one_class(self) -> bool:
        """Returns whether the class word tells nothing."""
        return self.left.class_word == self.right.class_word

    @property
    def prompt(self) -> str:
        """Returns the prompt of the whole picture."""
        names = (f"a {each.token} {each.class_word}" for each in (self.left, self.right))
        return f"a photo of {' and '.join(names)}"

    @property
    def regions(self) -> list[Region]:
        """Returns a box for each; what a box shall not show is the other concept."""
        prompts = [f"a photo of a {each.token} {each.class_word}" for each in (self.left, self.right)]
        return [Region(box, prompt, other) for box, prompt, other in zip(BOXES, prompts, prompts[::-1], strict=True)]


def write_twins(path: Path) -> Sequence:
    """Writes the sequence of all concepts of the classes that come twice, and reads it."""
    concepts = [
        concept
        for number in (1, 2, 3)
        for concept in Sequence.read(sequence_path(f"miniature_set{number}")).concepts
        if concept.class_word in TWINS
    ]
    told = [
        {
            "token": f"<new{number}>",
            "class_word": concept.class_word,
            "kind": concept.kind,
            "images": str(concept.images.absolute()),
        }
        for number, concept in enumerate(concepts, start=1)
    ]
    prompts = {"single": ["a photo of a <new1>"], "double": [], "triple": []}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"name": "twins", "concepts": told, "prompts": prompts}, sort_keys=False), "utf-8")
    return Sequence.read(path)


def pairs_of(sequence: Sequence) -> tuple[list[Pair], list[Pair]]:
    """Returns the pairs of one class, and those of two."""
    pairs = [Pair(*each) for each in combinations(sequence.concepts, 2)]
    return [each for each in pairs if each.is_of_one_class], [each for each in pairs if not each.is_of_one_class]


def shared_out(pictures: int, pairs: list[Pair]) -> list[tuple[Pair, list[int]]]:
    """Shares a number of pictures out among pairs: each with the seeds of its pictures."""
    counts = [pictures // len(pairs) + (number < pictures % len(pairs)) for number in range(len(pairs))]
    return [(pair, list(range(count))) for pair, count in zip(pairs, counts, strict=True) if count]


class Identities:
    """Tells of which of two concepts the crop of a box is."""

    def __init__(self, concepts: tuple[Concept, ...]) -> None:
        self.encoder = ClipEncoder(judge_path())
        self.photos = {each.token: self.encoder.images(read_photos(each)) for each in concepts}

    def margins(self, pair: Pair, pictures: list[Image.Image]) -> Tensor:
        """Returns how much nearer each crop is to its own concept than to the other, shape (pictures, 2)."""
        import torch

        columns = []
        for box, own, other in zip(BOXES, (pair.left, pair.right), (pair.right, pair.left), strict=True):
            crops = self.encoder.images([_crop(picture, box) for picture in pictures])
            near, far = (crops @ self.photos[each.token].T for each in (own, other))
            columns.append(near.mean(1) - far.mean(1))
        return torch.stack(columns, 1)


def _crop(picture: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    left, top, right, bottom = box
    width, height = picture.size
    place = tuple(round(number) for number in (left * width, top * height, right * width, bottom * height))
    return picture.crop(place).resize(picture.size)  # type: ignore[arg-type]


@dataclass
class Counts:
    """Crops that were looked at; those nearer their own concept; the same, had left and right been free to swap."""

    crops: int = 0
    right: int = 0
    right_either_way: int = 0

    def add(self, margins: Tensor) -> None:
        """Counts the crops of some pictures."""
        hits = margins > 0
        self.crops += hits.numel()
        self.right += int(hits.sum())
        # Swapped, a crop's margin changes its sign.
        is_swapped = margins.sum(1) < 0
        self.right_either_way += int((hits ^ is_swapped[:, None]).sum())


def measure(pipe: DiffusionPipeline, sequence: Sequence, pictures: int, steps: int, sheet: Path | None) -> str:
    """Draws and scores; returns the result in Markdown."""
    judge, rows, names = Identities(sequence.concepts), [], []
    counts = {key: Counts() for key in ((group, how) for group in (True, False) for how in (False, True))}
    for group in pairs_of(sequence):
        for pair, seeds in shared_out(pictures // 2, group):
            row = []
            for has_regions in (False, True):
                regions = pair.regions if has_regions else []
                drawn = generate(pipe, [pair.prompt], seeds, steps, GUIDANCE, batch_size=25, regions=regions)
                counts[pair.is_of_one_class, has_regions].add(judge.margins(pair, drawn))
                row += drawn[:SHOWN]
            photos = [read_photos(each)[0] for each in (pair.left, pair.right)]
            if len(row) == 2 * SHOWN:
                rows.append([*photos, *row])
                names.append(f"{pair.left.images.name} and {pair.right.images.name}".replace("_", " "))
    if sheet is not None:
        columns = ["left", "right", *["without"] * SHOWN, *["with boxes"] * SHOWN]
        grid(rows[:6], names[:6], columns).save(sheet, quality=90)
    lines = [
        "| pictures of | crops | without regions | without, left and right free | with regions |",
        "|---|---|---|---|---|",
    ]
    for is_of_one_class, said in ((True, "two concepts of one class"), (False, "concepts of two classes")):
        lines.append(_row(said, counts[is_of_one_class, False], counts[is_of_one_class, True]))
    totals = [
        Counts(*(sum(getattr(counts[group, how], name) for group in (True, False)) for name in vars(Counts())))
        for how in (False, True)
    ]
    share = totals[1].right / totals[1].crops
    plain, boxed = seconds_of_both(pipe, pairs_of(sequence)[0][0], steps)
    lines += [
        _row("all", *totals),
        "",
        f"Asked with regions: at least {GOAL:.0%} of all crops; {'reached' if share >= GOAL else 'missed'}.",
        "",
        f"A picture takes {boxed / plain:.2f} times as long with two boxes as without ({1000 * boxed:.0f} and "
        f"{1000 * plain:.0f} ms, {steps} steps, {TIMED} at once; the median of {ROUNDS} rounds, in turn).",
    ]
    return "\n".join([*lines, ""])


def seconds_of_both(pipe: DiffusionPipeline, pair: Pair, steps: int) -> tuple[float, float]:
    """Returns the seconds of a picture without boxes and with them, drawn in turn after a first draw of each."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for number in range(ROUNDS + 1):
        for has_regions in (False, True) if number % 2 else (True, False):
            begin = time.perf_counter()
            regions = pair.regions if has_regions else []
            generate(pipe, [pair.prompt], list(range(TIMED)), steps, GUIDANCE, batch_size=TIMED, regions=regions)
            if number:
                found[has_regions].append((time.perf_counter() - begin) / TIMED)
    return statistics.median(found[False]), statistics.median(found[True])


def _row(said: str, plain: Counts, boxed: Counts) -> str:
    shares = (plain.right / plain.crops, plain.right_either_way / plain.crops, boxed.right / boxed.crops)
    return f"| {said} | {plain.crops} | {' | '.join(f'{share:.1%}' for share in shares)} |"


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/regions"), help="folder of the run that is drawn from")
    parser.add_argument("--fit-steps", type=int, default=250, help="optimizer steps of every stage")
    parser.add_argument("--pictures", type=int, default=100, help="without regions, and as many with them")
    parser.add_argument("--steps", type=int, default=25, help="steps of the sampler")
    parser.add_argument("--out", type=Path, help="document whose section `regions` is replaced; the sheet lies beside")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, "regions")
    work = arguments.work.absolute()
    sequence = write_twins(work / "twins.yaml")
    pipe = load_pipeline(learn(work / "run", work / "twins.yaml", arguments.fit_steps))
    sheet = arguments.out.with_suffix(".jpg") if arguments.out else work / "regions.jpg"
    text = measure(pipe, sequence, arguments.pictures, arguments.steps, sheet)
    print(text, end="")
    if arguments.out:
        command = " ".join(["python -m benchmarks.regions", *sys.argv[1:]])
        write_section(arguments.out, "regions", f"`{command}`\n\n{text}\n![{sheet.stem}]({sheet.name})\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
