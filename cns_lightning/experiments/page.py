"""The page of a comparison: all methods side by side, in one file with everything inside."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from cns_lightning.experiments.comparison import ALONE, CLASS_WORD, IN_WORDS
from cns_lightning.experiments.figures import GROUPS, readable, value_as_text
from cns_lightning.report.facts import data_url
from cns_lightning.report.report import rendered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from PIL import Image

    Table = tuple[str, str, list[str], list[list[tuple[str, Any]]]]

BOUNDS = (ALONE, CLASS_WORD, IN_WORDS)
AT_90 = (
    ("single_clip_i_at_90", "CLIP-I one\nat 0.9 CLIP-T", "up"),
    ("multi_clip_i_at_90", "CLIP-I several\nat 0.9 CLIP-T", "up"),
)
FIGURES = (
    (
        "forgetting.png",
        "Over stages",
        "Mean CLIP-I of the concepts learned so far, and how much of its best a concept has lost.",
    ),
    (
        "curves.png",
        "Likeness against the prompt",
        "CLIP-I and CLIP-T as steps go by: one point says little, a method that learns faster also loses the prompt "
        "earlier.",
    ),
)


def comparison_page(
    out: Path,
    rows: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
    grids: Mapping[str, tuple[list[str], list[tuple[str, list[Image.Image]]]]],
    command: str,
    configuration: str,
) -> str:
    """Returns the page.

    Args:
        out: folder of the comparison, with its figures.
        rows: rows of the table, methods first.
        differences: from `differences.paired_differences`.
        grids: by set, the prompts, and a row of pictures for each label, the user's first.
        command: command that made the comparison.
        configuration: text of its file.
    """
    sets = [
        {"name": name, "columns": prompts, "rows": [(label, [data_url(each) for each in row]) for label, row in lines]}
        for name, (prompts, lines) in grids.items()
    ]
    figures = [(title, about, _embedded(out / file)) for file, title, about in FIGURES if (out / file).exists()]
    figures += [
        (
            f"What concepts are taken for: {path.stem.removeprefix('confusion-')}",
            "For each concept asked for, the share of its pictures whose nearest picture in the gallery shows which.",
            _embedded(path),
        )
        for path in sorted(out.glob("confusion-*.png"))
        if path.stem.removeprefix("confusion-") in grids
    ]
    return rendered(
        "comparison.html",
        name=out.name,
        methods=[row["method"] for row in rows if row["method"] not in BOUNDS],
        verdict=verdict(rows),
        sets=sets,
        tables=[*_between(differences), *_tables(rows)],
        figures=figures,
        command=command,
        configuration=configuration,
    )


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the sentences a reader should take away: who is first in what, and by how much."""
    sayings = (
        ("single_clip_i", max, "most like the photos, one concept asked for (CLIP-I)"),
        ("multi_clip_i", max, "most like them, several asked for"),
        ("single_clip_t", max, "truest to the rest of the prompt (CLIP-T)"),
        ("forgetting_from_best", min, "forgets least (CLIP-I lost)"),
    )
    said = []
    for name, best, what in sayings:
        known = [(row[name], row["method"]) for row in rows if row["method"] not in BOUNDS and row[name] is not None]
        if len(known) < 2:
            continue
        value, method = best(known)
        second, other = best(each for each in known if each[1] != method)
        said.append(f"{what}: {readable(method)}, {value:.3f}, before {readable(other)}, {second:.3f}.")
    return " ".join(each[0].upper() + each[1:] for each in said)


def _between(differences: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Lists the table of differences, if there is one: a row for each other method."""
    if not differences:
        return []
    cells: dict[str, dict[str, tuple[str, Any]]] = {}
    for row in differences:
        shown = f"{round(row['difference'], 3) + 0:+.3f} ({row['ahead']} of {row['pairs']})"
        cells.setdefault(row["against"], {})[row["figure"]] = (shown, row["difference"])
    columns = [
        (name, heading, way)
        for name, heading, way in [*AT_90, *GROUPS["quality"]]
        if any(name in row for row in cells.values())
    ]
    lines = [
        [(readable(other), readable(other)), *(row.get(name, ("", "")) for name, _, _ in columns)]
        for other, row in cells.items()
    ]
    method = readable(differences[0]["method"])
    about = (
        f"{method} less the other method: means over pairs of runs with the same set and seed, and in how many of them "
        f"{method} is ahead."
    )
    return [(f"{method} against each", about, _headings("against", columns), lines)]


def _tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    about = "Means over the runs, with the standard deviation where there are several. The bounds stand last."
    return [(title.capitalize(), about, *_table(rows, columns)) for title, columns in GROUPS.items()]


def _headings(first: str, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    arrows = {"up": "\N{UPWARDS ARROW}", "down": "\N{DOWNWARDS ARROW}"}
    return [first, *(f"{heading} {arrows[way]}".replace("\n", " ") for _, heading, way in columns)]


def _table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str, str]]
) -> tuple[list[str], list[list[tuple[str, Any]]]]:
    headings = _headings("method", columns)
    shown = [row for row in rows if any(row[name] is not None for name, _, _ in columns)]
    cells = [
        [
            (readable(row["method"]), readable(row["method"])),
            *((value_as_text(row, name), "" if row[name] is None else row[name]) for name, _, _ in columns),
        ]
        for row in shown
    ]
    return headings, cells


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
