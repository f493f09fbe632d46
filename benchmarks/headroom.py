"""Measures whether the miniature's concepts are fit to compare methods on; writes a section of docs/miniature.md.

Each concept is learned alone, by all key and value weights, by CNS and by the token, and whole sequences by naive
fine-tuning and CNS. The way is what a method covers of the distance between the class word's CLIP-I and that of the
user's photos among themselves, where at least 0.9 of the class word's CLIP-T is left (docs/evaluation.md, curves).
With `--concepts` some concepts are learned alone and no sequence is: the cheap test of a base model before it ships.

``python -m benchmarks.headroom --work runs/headroom --out docs/miniature.md``
``python -m benchmarks.headroom --work runs/try --concepts magenta_half_cup mint_ringed_dog --seeds 0
--base-model runs/miniature/weights/base --judge runs/miniature/weights/judge``
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.scoring import check_section, write_section
from cns_lightning.cli.main import main as command_line
from cns_lightning.evaluation.curves import headline
from cns_lightning.sequences.sequence import Sequence, sequence_path
from cns_lightning.storage import read_json

SETS = ("miniature_set1", "miniature_set2", "miniature_set3")
STACK = ["configs/base/miniature.yaml", "configs/miniature/data.yaml", "configs/hardware/auto.yaml"]
# Rates for a concept alone; those of configs/miniature are for sequences.
ALONE: dict[str, dict[str, Any]] = {
    "all_weights": {"files": ["configs/miniature/fine_tuning.yaml"], "values": {"model.method.learning_rate": 5e-4}},
    "cns": {"files": ["configs/miniature/cns.yaml"]},
    "token": {"files": ["configs/miniature/textual_inversion.yaml"]},
}
IN_TURN: dict[str, dict[str, Any]] = {
    "naive": {"files": ["configs/miniature/fine_tuning.yaml"]},
    "cns": {"files": ["configs/miniature/cns.yaml"]},
}


def write_alone(folder: Path, names: tuple[str, ...], chosen: tuple[str, ...] = ()) -> list[str]:
    """Writes a sequence file of every concept of some sets, with its own prompts; returns their paths.

    Args:
        folder: folder of the files.
        names: names of the sets.
        chosen: folder names of the concepts that count; empty for all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        sequence = Sequence.read(sequence_path(name))
        for concept in sequence.concepts:
            if chosen and concept.images.name not in chosen:
                continue
            path = folder / f"{name}-{concept.images.name}.yaml"
            about = {key: getattr(concept, key) for key in ("token", "class_word", "kind", "description")}
            prompts = [prompt for prompt in sequence.prompts.single if concept.token in prompt]
            content = {
                "name": path.stem,
                "concepts": [{key: text for key, text in about.items() if text} | {"images": str(concept.images)}],
                "prompts": {"single": prompts},
            }
            path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
            written.append(str(path))
    return written


def compare(work: Path, name: str, given: dict[str, Any], jobs: int) -> Path:
    """Runs a comparison, or what is missing of it; returns its folder."""
    config, out = work / f"{name}.yaml", work / name
    config.write_text(yaml.safe_dump({"stack": STACK, **given}, sort_keys=False), "utf-8")
    if command_line(["compare", "--config", str(config), "--out", str(out), "--jobs", str(jobs)]) != 0:
        raise RuntimeError(f"{name} failed")
    return out


def scores_of(out: Path, method: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Reads the scores of a method's runs, each with those of the class word on the same set."""
    return [
        (read_json(path), read_json(out / "class_word" / path.parts[-4] / "scores.json"))
        for path in sorted(out.glob(f"{method}/*/seed-*/evaluation/scores.json"))
    ]


def ways(out: Path) -> dict[str, float]:
    """Computes the way of each method, over all concepts and seeds: what was covered, by what there was to cover."""
    found = {}
    for method in ALONE:
        covered, there = [], []
        for scores, class_word in scores_of(out, method):
            start = class_word["curve_start"]
            reached = headline(scores["curve"], start)["single_clip_i_at_90"]
            assert reached is not None
            covered.append(reached - start["single"]["clip_i"])
            there.append(scores["photos"]["clip_i"] - start["single"]["clip_i"])
        found[method] = sum(covered) / sum(there)
    return found


def way_of_words(out: Path) -> float | None:
    """Computes how far the concepts' descriptions come on the base model; None where concepts have none."""
    covered, there = [], []
    for path in sorted(out.glob("in_words/*/scores.json")):
        class_word = read_json(out / "class_word" / path.parent.name / "scores.json")
        learned = read_json(next(out.glob(f"*/{path.parent.name}/seed-*/evaluation/scores.json")))
        start = class_word["groups"]["single"]["clip_i"]
        covered.append(read_json(path)["groups"]["single"]["clip_i"] - start)
        there.append(learned["photos"]["clip_i"] - start)
    return sum(covered) / sum(there) if there else None


def lost(out: Path, method: str) -> float:
    """Computes what a method loses over a sequence: CLIP-I after a concept's own stage less that at the end, as a way.

    The last concept, which has nothing after it, does not count.
    """
    gone, there = [], []
    for scores, class_word in scores_of(out, method):
        matrix = scores["matrix"]
        for number, token in enumerate(scores["learned"][:-1]):
            gone.append(matrix[number][number] - matrix[-1][number])
            there.append(scores["photos"]["concepts"][token] - class_word["concepts"][token]["clip_i"])
    return sum(gone) / sum(there)


def identity(out: Path, part: str) -> float:
    """Computes the mean of CNS's identity top-1 over sequences and seeds, those that have any such concepts."""
    found = [scores["identity"][part]["top1"] for scores, _ in scores_of(out, "cns")]
    return statistics.fmean(value for value in found if value is not None)


@dataclass(frozen=True)
class Bar:
    """A figure that is asked for: what it is, its value, in words what it must be, and whether it is."""

    what: str
    value: float
    asked: str
    is_met: Callable[[float], bool]


def bars(alone: Path, in_turn: Path | None) -> list[Bar]:
    """Returns all figures with what is asked of them; without sequences those of concepts alone."""
    way, words = ways(alone), way_of_words(alone)
    found = [
        Bar("all key and value weights, alone: way", way["all_weights"], "at least 0.6", lambda value: value >= 0.6),
        Bar("CNS, alone: way", way["cns"], "at least 0.5", lambda value: value >= 0.5),
        Bar("token alone: way", way["token"], "0.15 to CNS's", lambda value: 0.15 <= value <= way["cns"]),
        *([] if words is None else [Bar("in words, nothing learned: way", words, "", lambda _: True)]),
    ]
    if in_turn is None:
        return found
    return [
        *found,
        Bar("naive fine-tuning in turn: lost", lost(in_turn, "naive"), "at least 0.15", lambda value: value >= 0.15),
        Bar(
            "CNS in turn: identity among photos, top-1",
            identity(in_turn, "among_photos"),
            "at least 0.85",
            lambda value: value >= 0.85,
        ),
        Bar(
            "CNS in turn: identity between two of one class, top-1",
            identity(in_turn, "within_class"),
            "at least 0.7",
            lambda value: value >= 0.7,
        ),
        Bar("photos among themselves: identity, top-1", identity(in_turn, "photos"), "", lambda _: True),
    ]


def document(found: list[Bar], command: str) -> str:
    """Returns the section of the document."""
    lines = [f"`{command}`", "", "| figure | measured | asked | |", "|---|---|---|---|"]
    for bar in found:
        verdict = ("met" if bar.is_met(bar.value) else "**not met**") if bar.asked else ""
        lines.append(f"| {bar.what} | {bar.value:.3f} | {bar.asked} | {verdict} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Reads the command line, measures, and writes the figures into the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of runs; finished ones are not repeated")
    parser.add_argument("--out", type=Path, help="document whose section `headroom` is replaced")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--concepts", nargs="+", default=[], help="folder names of concepts, learned alone")
    parser.add_argument("--base-model", type=Path, help="folder of a base model in place of the shipped one")
    parser.add_argument("--judge", type=Path, help="folder of its judge")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, "headroom")
    work, seeds = arguments.work.absolute(), arguments.seeds
    points = [arguments.steps // 6, arguments.steps // 3, 2 * arguments.steps // 3]
    fit: dict[str, Any] = {"steps": arguments.steps, "samples.pictures": 0}
    test: dict[str, Any] = {"pictures": arguments.pictures, "batch_size": 40}
    if arguments.base_model:
        fit["model.base_model"] = str(arguments.base_model.absolute())
    if arguments.judge:
        test["judge"] = str(arguments.judge.absolute())
    alone = {
        "methods": ALONE,
        "sets": write_alone(work / "concepts", tuple(arguments.sets), tuple(arguments.concepts)),
        "seeds": seeds,
        "fit": fit | {"snapshots.steps": points},
        "test": test | {"matrix_pictures": 0, "look_alikes": 0, "curve_pictures": arguments.pictures},
    }
    in_turn = {
        "methods": IN_TURN, "sets": arguments.sets, "seeds": seeds, "fit": fit, "test": test | {"matrix_pictures": 1},
    }  # fmt: skip
    learned_alone = compare(work, "alone", alone, arguments.jobs)
    learned_in_turn = None if arguments.concepts else compare(work, "in_turn", in_turn, arguments.jobs)
    found = bars(learned_alone, learned_in_turn)
    text = document(found, " ".join(["python -m benchmarks.headroom", *sys.argv[1:]]))
    print(text)
    if arguments.out:
        write_section(arguments.out, "headroom", text)


if __name__ == "__main__":
    main()
