"""Writes a section of a document from what `compare` left behind: methods side by side, and how far CNS is ahead.

Nothing is run: figures come from the folder's CSV files, pictures beside them are copied next to the document.

``python -m benchmarks.comparison --results runs/compare --section comparison --out docs/comparison.md``
``python -m benchmarks.comparison --results runs/paper_ablations --section paper_ablations --out docs/comparison.md``
"""

from __future__ import annotations

import argparse
import csv
import sys
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from benchmarks.scoring import check_section, command_of, write_section
from cns_lightning.experiments.figures import readable
from cns_lightning.sequences.sequence import Sequence, sequence_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence as Listing

    Rows = list[dict[str, str]]

QUALITY = {
    "single_clip_i_at_90": "one at 0.9",
    "single_way_at_90": "way",
    "multi_clip_i_at_90": "several at 0.9",
    "single_clip_i": "CLIP-I one",
    "multi_clip_i": "several",
    "single_clip_t": "CLIP-T one",
    "multi_clip_t": "several",
    "identity_top1": "identity",
    "forgetting_from_best": "forgetting",
    "drift_clip_t": "drift",
}
"""Columns of the table, as `table.csv` and the document call them."""
COSTS = {
    "trained_numbers": ("numbers", ",.0f"),
    "kilobytes": ("kB", ",.0f"),
    "training_seconds": ("s a stage", ".0f"),
    "fusion_seconds": ("s of fusion", ".1f"),
    "peak_memory_mb": ("MB", ",.0f"),
    "seconds_per_picture": ("s a picture", ".2f"),
}
CURVES = "CLIP-I and CLIP-T as steps go by"
OF_A_SET = ("single_clip_i_at_90", "multi_clip_i_at_90", "identity_top1", "forgetting_from_best")


def read(path: Path) -> Rows:
    """Returns the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown(headings: Listing[str], lines: Iterable[Listing[str]]) -> str:
    """Returns a table whose first column is text."""
    rule = "|---|" + "---:|" * (len(headings) - 1)
    return "\n".join([f"| {' | '.join(headings)} |", rule, *(f"| {' | '.join(line)} |" for line in lines), ""])


def quality(results: Path) -> str:
    """Returns the methods and bounds side by side: means, and the standard deviation over sets and seeds."""
    rows = read(results / "table.csv")
    lines = [[readable(row["method"]), *(_cell(row[name], row[f"{name}_spread"]) for name in QUALITY)] for row in rows]
    return markdown(["method", *QUALITY.values()], lines)


def costs(results: Path) -> str:
    """Returns what a concept costs; methods only."""
    rows = [row for row in read(results / "table.csv") if row["trained_numbers"]]
    lines = []
    for row in rows:
        cells = [format(float(row[name]), how) if row[name] else "" for name, (_, how) in COSTS.items()]
        lines.append([readable(row["method"]), *cells])
    return markdown(["a concept", *(heading for heading, _ in COSTS.values())], lines)


def differences(results: Path) -> str:
    """Returns how far the first method is ahead of every other within pairs of runs, and in how many of them."""
    rows = read(results / "differences.csv")
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        spread = f" ± {float(row['spread']):.3f}" if row["spread"] else ""
        shown = f"{_signed(float(row['difference']))}{spread}, {row['ahead']} of {row['pairs']}"
        cells.setdefault(row["against"], {})[row["figure"]] = shown
    figures = {name: heading for name, heading in QUALITY.items() if any(name in row for row in cells.values())}
    lines = [[readable(other), *(row.get(name, "") for name in figures)] for other, row in cells.items()]
    return markdown([f"{readable(rows[0]['method'])} less", *figures.values()], lines) if rows else ""


def by_set(results: Path) -> str:
    """Returns some figures of each set, means over seeds; empty where there is one set only."""
    rows = read(results / "runs.csv")
    methods, sets = ([*dict.fromkeys(row[name] for row in rows)] for name in ("method", "set"))
    values = {
        (method, name, figure): [
            float(row[figure]) for row in rows if (row["method"], row["set"]) == (method, name) and row[figure]
        ]
        for method in methods
        for name in sets
        for figure in OF_A_SET
    }
    sets = [name for name in sets if sum(bool(values[method, name, OF_A_SET[0]]) for method in methods) > 1]
    if len(sets) < 2:
        return ""
    lines = [
        [readable(method), *(_mean(values[method, name, figure]) for figure in OF_A_SET for name in sets)]
        for method in methods
        if any(values[method, name, OF_A_SET[0]] for name in sets)
    ]
    return markdown(["", *(f"{QUALITY[figure]}: {_short(name)}" for figure in OF_A_SET for name in sets)], lines)


def apart(results: Path) -> str:
    """Returns how far each two concepts of one class are drawn apart.

    That is, summed over both, how much more alike the pictures of each are to its own photos than to the other's.
    """
    rows = read(results / "same_class.csv")
    found = {(row["method"], row["set"], row["asked"], row["compared_with"]): float(row["clip_i"]) for row in rows}
    pairs = []
    for name in dict.fromkeys(row["set"] for row in rows):
        classes = {concept.token: concept.class_word for concept in Sequence.read(sequence_path(name)).concepts}
        asked = dict.fromkeys(row["asked"] for row in rows if row["set"] == name)
        pairs += [(name, *two) for two in combinations(asked, 2) if classes[two[0]] == classes[two[1]]]
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for name, one, two in pairs:
            four = [found.get((method, name, *which)) for which in ((one, one), (one, two), (two, two), (two, one))]
            known = [value for value in four if value is not None]
            cells.append(_signed(known[0] - known[1] + known[2] - known[3]) if len(known) == len(four) else "")
        lines.append([readable(method), *cells])
    return markdown(["apart", *(f"{_short(name)}: {one}, {two}" for name, one, two in pairs)], lines) if pairs else ""


def pictures(results: Path, folder: Path, name: str) -> list[str]:
    """Copies the curves, and for every set the heat maps and the sheet, into a folder; returns lines that show them.

    Args:
        results: folder of the comparison.
        folder: where they go, beside the document.
        name: begins their names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for path in [results / "curves.png", *sorted(results.glob("confusion-*.png"))]:
        if path.exists():
            target = folder / f"{name}-{_short(path.stem)}.png"
            Image.open(path).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)
            of_set = _short(path.stem.removeprefix("confusion-"))
            about = CURVES if path.stem == "curves" else f"what pictures of each concept are taken for, {of_set}"
            shown.append(f"![{about}]({folder.name}/{target.name})")
    for path in sorted(results.glob("grid-*.png")):
        target = folder / f"{name}-{_short(path.stem)}.jpg"
        Image.open(path).convert("RGB").save(target, quality=88)
        about = f"one row per method below the photos, {_short(path.stem.removeprefix('grid-'))}"
        shown.append(f"![{about}]({folder.name}/{target.name})")
    return shown


def _short(name: str) -> str:
    return name.replace("miniature_", "")


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0:+.3f}"


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else ""


def _cell(value: str, spread: str) -> str:
    if not value:
        return ""
    return f"{round(float(value), 3) + 0:.3f}" + (f" ± {float(spread):.3f}" if spread else "")


def main() -> int:
    """Reads the command line and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="folder of a comparison")
    parser.add_argument("--section", default="comparison", help="section of the document, and beginning of file names")
    parser.add_argument("--costs", action="store_true", help="with what a concept costs; of runs one at a time")
    parser.add_argument("--pictures", action="store_true", help="with curves, heat maps and sheets")
    parser.add_argument("--out", type=Path, help="document whose section is replaced")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, arguments.section)
    results = arguments.results
    parts = [quality(results), differences(results), by_set(results), apart(results)]
    parts += [costs(results)] if arguments.costs else []
    if arguments.out and arguments.pictures:
        parts += [f"{line}\n" for line in pictures(results, arguments.out.parent / "figures", arguments.section)]
    text = "\n".join(part for part in parts if part)
    print(text, end="")
    if arguments.out:
        command = command_of("benchmarks.comparison", sys.argv[1:])
        write_section(arguments.out, arguments.section, f"`{command}`\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
