"""Puts two comparisons of one method side by side, set by set: what a change of the method has changed.

Reads finished run folders, `OUT/METHOD/SET/seed-N`; means over seeds. Movement is the mean absolute value of a
concept's delta; apart is, of two concepts of one class, how much more alike the pictures of each are to its own photos
than to the other's, summed over both.

``python -m benchmarks.before_after --before runs/before --after runs/cns --out docs/comparison.md``
"""

from __future__ import annotations

import argparse
import statistics
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.scoring import check_section, write_section
from cns_lightning import NeuronRegistry
from cns_lightning.cli.concepts import overlap_figures
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_json

SECTION = "before_after"


def figures(run: Path) -> dict[str, float]:
    """Returns what is compared of a finished and scored run, by name."""
    folder = RunFolder(run)
    registry, scores = NeuronRegistry.load(folder.registry), read_json(folder.evaluation / "scores.json")
    groups, overlap = scores["groups"], overlap_figures(registry)
    several = [groups[name] for name in ("double", "triple") if name in groups]
    moved = [float(record.values.float().abs().mean()) for record in registry.records]
    found = {
        "CLIP-I one": groups["single"]["clip_i"],
        "CLIP-T one": groups["single"]["clip_t"],
        "CLIP-I several": statistics.fmean(each["clip_i"] for each in several),
        "CLIP-T several": statistics.fmean(each["clip_t"] for each in several),
        "forgetting (best)": scores["forgetting_from_best"],
        "forgetting (own stage)": scores["forgetting_from_learned"],
        "drift": scores["drift"]["clip_t_change"],
        "CLIP-I of the photos themselves": scores["photos"]["clip_i"],
        "identity, top-1": scores["identity"]["top1"],
        "identity among photos, top-1": scores["identity"]["among_photos"]["top1"],
        "the photos themselves, top-1": scores["identity"]["photos"]["top1"],
        "movement, last stage / first": moved[-1] / moved[0],
        "IoU of two": overlap["mean_pairwise"],
        "IoU of all": overlap["joint"],
    }
    if "mean_within_class" in overlap:
        found["IoU of two of one class"] = overlap["mean_within_class"]
    return found | apart(scores, {entry.token: entry.class_word for entry in registry.entries})


def apart(scores: dict[str, Any], classes: dict[str, str]) -> dict[str, float]:
    """Returns how far apart each two concepts of one class are drawn, and how far their photos are, by name."""
    same_class, found = scores["same_class"], {}
    for one, two in combinations(same_class, 2):
        if classes[one] == classes[two]:
            rows = same_class[one], same_class[two]
            found[f"two {classes[one]}s apart"] = rows[0][one] - rows[0][two] + rows[1][two] - rows[1][one]
            found[f"their photos: two {classes[one]}s"] = scores["photos"]["apart"][one][two]
    return found


def of_comparison(out: Path) -> dict[str, dict[str, list[float]]]:
    """Returns every figure by set and name, one value per seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in sorted(out.glob("*/*/seed-*")):
        for name, value in figures(run).items():
            found.setdefault(run.parent.name, {}).setdefault(name, []).append(value)
    return found


def table(before: Path, after: Path) -> str:
    """Returns the result in Markdown."""
    sides = [of_comparison(before), of_comparison(after)]
    sets = [name for name in sides[0] if name in sides[1]]
    lines = [
        "| | " + " | ".join(f"{name.removeprefix('miniature_')} before | after" for name in sets) + " |",
        "|---" * (1 + 2 * len(sets)) + "|",
    ]
    for name in dict.fromkeys(name for side in sides for each in side.values() for name in each):
        cells = [_cell(side[chosen].get(name)) for chosen in sets for side in sides]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cell(values: list[float] | None) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def main() -> int:
    """Reads the command line and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="folder of a comparison of one method")
    parser.add_argument("--after", type=Path, required=True, help="another one, of the same sets")
    parser.add_argument("--out", type=Path, help=f"document whose section `{SECTION}` is replaced")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, SECTION)
    text = table(arguments.before, arguments.after)
    print(text, end="")
    if arguments.out:
        command = " ".join(["python -m benchmarks.before_after", *sys.argv[1:]])
        write_section(arguments.out, SECTION, f"`{command}`\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
