"""The curves of a comparison: CLIP-I against CLIP-T over training steps, by run, by method, and as a picture."""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from cns_lightning.analysis.palette import MARKERS
from cns_lightning.evaluation.curves import GROUPS, SHARE, headline, share_of
from cns_lightning.experiments.comparison import CLASS_WORD
from cns_lightning.experiments.figures import LINES, PALETTE, as_png, readable
from cns_lightning.experiments.table import scores_of
from cns_lightning.storage import csv_bytes, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cns_lightning.experiments.comparison import Run

    Scores = Mapping[str, Any]
    Points = list[dict[str, Any]]

COLUMNS = ("method", "set", "seed", "steps", "group", "clip_i", "clip_t")
TITLES = {"single": "one concept", "several": "several concepts"}


def curve_of(run: Run) -> Points:
    """Returns the points of a finished run, in ascending steps; none where it kept no snapshots."""
    return scores_of(run).get("curve", [])


def with_headline(
    by_run: Iterable[dict[str, Any]], runs: Iterable[Run], bound: Mapping[str, Scores]
) -> list[dict[str, Any]]:
    """Adds what is read off each run's curve to its row.

    Args:
        by_run: one row per run, from `table.rows_by_run`.
        runs: the same runs.
        bound: scores of the class word by set.
    """
    rows = []
    for cells, run in zip(by_run, runs, strict=True):
        curve, start = curve_of(run), bound[run.set_name].get("curve_start")
        photos = scores_of(run).get("photos", {}).get("clip_i")
        rows.append({**cells, **(headline(curve, start, photos) if curve and start else {})})
    return rows


def rows_of_curves(runs: Iterable[Run], bound: Mapping[str, Scores]) -> list[dict[str, Any]]:
    """Returns one row per run, point and group of prompts, then those of the class word, at 0 steps and of no seed.

    Args:
        runs: finished ones.
        bound: scores of the class word by set.
    """
    found: list[tuple[str, str, int | str, dict[str, Any]]] = []
    for run in runs:
        found += [(run.method, run.set_name, run.seed, point) for point in curve_of(run)]
    starts = {name: scores["curve_start"] for name, scores in bound.items() if "curve_start" in scores}
    found += [(CLASS_WORD, name, "", {"steps": 0, **start}) for name, start in starts.items()]
    return [
        dict(zip(COLUMNS, (*names, point["steps"], group, point[group]["clip_i"], point[group]["clip_t"]), strict=True))
        for *names, point in found
        for group in GROUPS
        if group in point
    ]


def mean_points(rows: Iterable[Mapping[str, Any]], group: str) -> dict[str, list[tuple[int, float, float]]]:
    """Returns steps, mean CLIP-T and mean CLIP-I by method, in ascending steps; of the steps that all its runs have.

    Args:
        rows: points of the curves, from `rows_of_curves`.
        group: ``single`` or ``several``.
    """
    found: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for row in rows:
        if row["group"] == group:
            of_method = found.setdefault(row["method"], {})
            of_method.setdefault(row["steps"], []).append((row["clip_t"], row["clip_i"]))
    means = {}
    for method, by_steps in found.items():
        runs = max(len(points) for points in by_steps.values())
        means[method] = [
            (steps, *(statistics.fmean(values) for values in zip(*points, strict=True)))
            for steps, points in sorted(by_steps.items())
            if len(points) == runs
        ]
    return means


def draw(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draws CLIP-I against CLIP-T, a panel for one concept and one for several, one line per method; a PNG.

    Args:
        rows: points of the curves, from `rows_of_curves`, of one group or both.
    """
    groups = [name for name in GROUPS if any(row["group"] == name for row in rows)]
    figure = Figure(figsize=(5.2 * len(groups), 5.0), layout="constrained")
    panels: Any = figure.subplots(1, len(groups), squeeze=False)[0]
    for panel, group in zip(panels, groups, strict=True):
        means = mean_points(rows, group)
        start = means.pop(CLASS_WORD, [])
        for place, (method, points) in enumerate(means.items()):
            _draw_line(panel, place, readable(method), [*start, *points])
        for _, text, image in start:
            look = {"color": "black", "markerfacecolor": "white", "markersize": 16, "linestyle": "none", "zorder": 4}
            panel.plot(text, image, marker="*", label=readable(CLASS_WORD), **look)
            panel.axvline(share_of(text, SHARE), color="#888888", linestyle="--", linewidth=1)
        panel.set_title(f"{TITLES[group]}: larger markers, more steps", fontsize=11)
        panel.set_xlabel(f"CLIP-T (dashed: {SHARE:g} of the class word's)")
        panel.set_ylabel("CLIP-I")
        panel.grid(color="#E5E5E5", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))), frameon=False)
    return as_png(figure)


def _draw_line(panel: Any, place: int, label: str, points: Sequence[tuple[int, float, float]]) -> None:
    colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
    line = LINES[place // len(PALETTE) % len(LINES)]
    _, texts, images = zip(*points, strict=True)
    panel.plot(texts, images, color=colour, linestyle=line, linewidth=1.6)
    last = max(1, len(points) - 1)
    for number, (steps, text, image) in enumerate(points):
        if steps:
            size = 4 + 4 * number / last
            panel.plot(text, image, marker, color=colour, markersize=size, label=label if number == last else None)
    for begin, end in pairwise(points):
        middle = [(first + second) / 2 for first, second in zip(begin[1:], end[1:], strict=True)]
        panel.annotate("", middle, begin[1:], arrowprops={"arrowstyle": "->", "color": colour, "linewidth": 1})


def write_curves(runs: Iterable[Run], bound: Mapping[str, Scores], out: Path) -> None:
    """Writes ``curves.csv``, and ``curves.png`` where there are curves.

    Args:
        runs: finished ones.
        bound: scores of the class word by set.
        out: folder of the comparison.

    Raises:
        UserError: if files cannot be written.
    """
    rows = rows_of_curves(runs, bound)
    write_atomically(out / "curves.csv", csv_bytes(rows, COLUMNS))
    if rows:
        write_atomically(out / "curves.png", draw(rows))
    else:  # of an earlier call, with other settings of `fit` or `test`
        (out / "curves.png").unlink(missing_ok=True)
