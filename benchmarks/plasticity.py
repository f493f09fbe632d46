"""Learns fifty concepts on the miniature: do late ones still move as the first did, and what have the first ones lost?

With `--out` it writes the section `plasticity` of a document. Movement is the mean absolute value of a concept's delta.

``python -m benchmarks.plasticity --work runs/plasticity`` (about ten minutes on two cores)
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from benchmarks.growth import SETS, write_sequence
from benchmarks.scoring import Judge, check_section, learn, own_prompts, write_section
from cns_lightning import NeuronRegistry, load_pipeline
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence, sequence_path

GROUP, FIRST = 7, 7
"""Concepts of a group whose movement is averaged; concepts whose pictures are scored."""


def learn_many(work: Path, count: int, steps: int) -> Path:
    """Learns a long sequence; returns the run folder."""
    work.mkdir(parents=True, exist_ok=True)
    write_sequence(work / "sequence.yaml", count)
    return learn(work / "run", work / "sequence.yaml", steps)


def movement(run: Path) -> list[float]:
    """Returns the mean absolute delta of every concept, in learning order."""
    records = NeuronRegistry.load(RunFolder(run).registry).records
    return [float(record.values.float().abs().mean()) for record in records]


def first_concepts(run: Path, pictures: int) -> list[tuple[str, float, float]]:
    """Scores the first concepts, those of set 1: folder, CLIP-I after its own stage, CLIP-I after the last."""
    judge, tokens = Judge(pictures), NeuronRegistry.load(RunFolder(run).registry).tokens
    sequence = Sequence.read(sequence_path(SETS[0]))
    last, rows = load_pipeline(run), []
    for concept, token in zip(sequence.concepts[:FIRST], tokens, strict=False):
        asked = [prompt.replace(concept.token, token) for prompt in own_prompts(sequence, concept)]
        then = judge.image_alignment(load_pipeline(run, upto=token), concept, asked)
        rows.append((concept.images.name, then, judge.image_alignment(last, concept, asked)))
    return rows


def report(run: Path, pictures: int) -> str:
    """Returns the result in Markdown."""
    moved, scored = movement(run), first_concepts(run, pictures)
    groups = [(start, moved[start : start + GROUP]) for start in range(0, len(moved), GROUP)]
    lines = ["| concepts | mean movement | of that of the first |", "|---|---:|---:|"]
    first = statistics.fmean(groups[0][1])
    for start, group in groups:
        mean = statistics.fmean(group)
        lines.append(f"| {start + 1} to {start + len(group)} | {mean:.4f} | {mean / first:.2f} |")
    lost = [then - now for _, then, now in scored]
    lines += [
        "",
        f"Stage {FIRST} moves {moved[FIRST - 1] / moved[0]:.2f} of what stage 1 moves, stage {len(moved)} "
        f"{moved[-1] / moved[0]:.2f}.",
        "",
        f"| concept | CLIP-I after its stage | after stage {len(moved)} | lost |",
        "|---|---:|---:|---:|",
        *(f"| {name} | {then:.3f} | {now:.3f} | {then - now:+.3f} |" for name, then, now in scored),
        f"| mean | | | {statistics.fmean(lost):+.3f} |",
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=50)
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of every stage")
    parser.add_argument("--pictures", type=int, default=2, help="pictures of every prompt")
    parser.add_argument("--work", type=Path, default=Path("runs/plasticity"))
    parser.add_argument("--out", type=Path, help="document whose section `plasticity` is replaced")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, "plasticity")
    text = report(learn_many(arguments.work.absolute(), arguments.concepts, arguments.steps), arguments.pictures)
    print(text, end="")
    if arguments.out:
        command = " ".join(["python -m benchmarks.plasticity", *sys.argv[1:]])
        write_section(arguments.out, "plasticity", f"`{command}`\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
