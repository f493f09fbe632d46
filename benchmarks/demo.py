"""Scores a finished demo: is every concept there, is the rest unharmed; writes docs/miniature.md and docs/demo.jpg.

``make demo``, then ``python -m benchmarks.demo --run runs/demo`` (about eight minutes on two cores)
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from PIL import Image, ImageOps

from benchmarks.miniature import HELD_OUT_SEED, PLACES, Single
from benchmarks.scoring import Judge, check_section, command_of, own_prompts, write_section
from cns_lightning import NeuronRegistry, load_pipeline
from cns_lightning.data.images import read_photos
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.sheets import grid, pictures_of
from cns_lightning.miniature.world import sampling
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence, sequence_path
from cns_lightning.sequences.templates import class_prompt
from cns_lightning.storage import read_json


def base_prompts(count: int) -> list[str]:
    """Lists prompts of the base world that name no concept."""
    numbers = random.Random(HELD_OUT_SEED + 2)
    kinds = [str(kind) for kind in sampling.KINDS]
    return [
        Single(numbers.choice(kinds), numbers.choice(list(sampling.COLOURS)), numbers.choice(list(PLACES))).prompt
        for _ in range(count)
    ]


def measure(run: Path, sequence: Sequence, pictures: int, prompts: int) -> str:
    """Returns the table of a run."""
    judge = Judge(pictures)
    base, last = BaseModel.load("miniature").pipeline(), load_pipeline(run)
    registry = NeuronRegistry.load(RunFolder(run).registry)
    lines = [
        "| concept | share of k,v moved | class word, base model | after its stage | after the last stage | margin |",
        "|---|---|---|---|---|---|",
    ]
    for concept in sequence.concepts:
        asked = own_prompts(sequence, concept)
        mask = registry.mask(concept.token).values()
        share = sum(int(each.sum()) for each in mask) / max(1, sum(each.numel() for each in mask))
        without = judge.image_alignment(base, concept, [class_prompt(prompt, sequence) for prompt in asked])
        own = judge.image_alignment(load_pipeline(run, upto=concept.token), concept, asked)
        now = judge.image_alignment(last, concept, asked)
        lines.append(
            f"| `{concept.token}` {concept.images.name} | {share:.2%} | {without:.3f} | {own:.3f} "
            f"| {now:.3f} | {now - without:+.3f} |"
        )
    texts = base_prompts(prompts)
    before, after = judge.text_alignment(base, texts), judge.text_alignment(last, texts)
    lines += [
        "",
        f"CLIP-I of {pictures} pictures for each of a concept's single prompts. CLIP-T of {pictures} pictures for each "
        f"of {prompts} prompts that name no concept: {before:.4f} on the base model, {after:.4f} after the last stage "
        f"({after / before - 1:+.2%}).",
        "",
        seconds(RunFolder(run)),
    ]
    return "\n".join([*lines, ""])


def seconds(folder: RunFolder) -> str:
    """Says how long the run took, from what it noted itself."""
    stages = read_json(folder.timings)["stages"].values()
    steps = RunConfig.read(folder).data["steps"]
    training = sum(stage["seconds"]["training"] for stage in stages)
    whole = sum(sum(stage["seconds"].values()) for stage in stages)
    return (
        f"The run's own `timings.json`: {whole / 60:.1f} minutes for {len(stages)} stages, "
        f"{training / steps / len(stages):.3f} s a step (at most 0.3)."
    )


def film_strip(run: RunFolder, sequence: Sequence) -> Image.Image:
    """Lays out one row per concept: a photo, then what was drawn of it after every stage from one seed.

    Read from left to right a row shows whether a concept is forgotten; where it was not learned yet it is empty.
    """
    count = len(sequence.concepts)
    sheets = [pictures_of(run.sample_sheet(stage)) for stage in range(count)]
    side = next(iter(sheets[0].values()))[0].size
    rows = []
    for number, concept in enumerate(sequence.concepts):
        photo = ImageOps.fit(read_photos(concept)[0], side)
        label = f"{concept.token} {concept.class_word}"
        drawn = [sheet[label][0] for sheet in sheets[number:]]
        rows.append([photo, *[Image.new("RGB", side, "white")] * number, *drawn])
    labels = [f"{concept.token} {concept.class_word}" for concept in sequence.concepts]
    return grid(rows, labels, ["a photo", *(f"after {number}" for number in range(1, count + 1))])


def main() -> None:
    """Reads the command line, measures, and writes the figures into the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/miniature.md"))
    parser.add_argument("--set", default="miniature_set1")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=60, help="that name no concept")
    arguments = parser.parse_args()
    check_section(arguments.out, "demo")
    sequence = Sequence.read(sequence_path(arguments.set))
    table = measure(arguments.run, sequence, arguments.pictures, arguments.prompts)
    command = command_of("benchmarks.demo", sys.argv[1:])
    picture = "![one row per concept: a photo, then the same prompt and seed after every stage](demo.jpg)"
    write_section(arguments.out, "demo", f"`{command}`\n\n{table}\n{picture}\n")
    film_strip(RunFolder(arguments.run), sequence).save(arguments.out.parent / "demo.jpg", quality=88)
    print(table)


if __name__ == "__main__":
    main()
