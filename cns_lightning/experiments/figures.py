"""The pictures of a comparison: its table, forgetting over stages, and what every method draws of every concept."""

from __future__ import annotations

import csv
import io
import math
import statistics
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from cns_lightning.analysis.palette import BLACK, COLOURS, MARKERS
from cns_lightning.data.images import read_photos
from cns_lightning.evaluation.forgetting import forgetting_from_best, forgetting_from_learned
from cns_lightning.evaluation.questions import questions
from cns_lightning.experiments.comparison import ALONE, CLASS_WORD, IN_WORDS
from cns_lightning.methods.discovery import display_name
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence
from cns_lightning.storage import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Sequence as Listing

    from cns_lightning.experiments.comparison import Run

    Matrix = Listing[Listing[float]]
    Curves = list[list[float]]

PALETTE = (*COLOURS, BLACK, "#8C8C00")
LINES = ("-", "--", ":")
"""Beyond as many methods as there are colours."""
LEAST_SHARE = 0.15
"""From which on a share is written into a heat map's cell; on the diagonal every share is."""
HEADING = 1.9
"""Height of the headings of a table, in lines."""
FIGURES = ("clip_i", "forgetting_from_best", "forgetting_from_learned")
GROUPS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "quality": (
        ("single_clip_i", "CLIP-I\none concept", "up"),
        ("multi_clip_i", "CLIP-I\nseveral", "up"),
        ("single_clip_t", "CLIP-T\none concept", "up"),
        ("multi_clip_t", "CLIP-T\nseveral", "up"),
        ("all_there", "all there\nof several", "up"),
        ("forgetting_from_best", "forgetting\n(CLIP-I)", "down"),
        ("drift_clip_t", "drift\n(CLIP-T)", "up"),
        ("identity_top1", "identity\n(top-1)", "up"),
    ),
    "cost of a concept": (
        ("trained_numbers", "trained\nnumbers", "down"),
        ("kilobytes", "stored\n(kB)", "down"),
        ("training_seconds", "training\n(s)", "down"),
        ("fusion_seconds", "fusion of\nall (s)", "down"),
        ("peak_memory_mb", "memory\n(MB)", "down"),
        ("seconds_per_picture", "a picture\n(s)", "down"),
    ),
}
"""Columns of the table's picture: name, heading, and which way is better."""


# ---- forgetting over stages -----------------------------------------------------------------------------------------


def curves_of(matrix: Matrix) -> Curves:
    """Computes, after every stage: mean CLIP-I of the concepts learned so far, forgetting from best and from learned.

    The first stage has nothing to forget: 0.
    """
    found = []
    for stage, scores in enumerate(matrix):
        so_far = matrix[: stage + 1]
        lost = [figure(so_far) for figure in (forgetting_from_best, forgetting_from_learned)]
        found.append([statistics.fmean(scores), *(value or 0.0 for value in lost)])
    return found


def curves_by_method(runs: Iterable[Run]) -> dict[str, list[Curves]]:
    """Returns the curves of every run with a whole matrix, by method; a concept by itself has none."""
    found: dict[str, list[Curves]] = {}
    for run in runs:
        matrix = read_json(RunFolder(run.folder).evaluation / "scores.json").get("matrix")
        if run.method != ALONE and matrix and all(score is not None for row in matrix for score in row):
            found.setdefault(run.method, []).append(curves_of(matrix))
    return found


def mean_and_spread(runs: Listing[Curves], figure: int) -> list[tuple[float, float]]:
    """Returns mean and standard deviation over runs of one figure after each stage that all of them have."""
    stages = min(len(curves) for curves in runs)
    values = [[curves[stage][figure] for curves in runs] for stage in range(stages)]
    return [(statistics.fmean(each), statistics.stdev(each) if len(each) > 1 else 0.0) for each in values]


def curves_as_csv(curves: Mapping[str, Listing[Curves]]) -> bytes:
    """Returns the curves as CSV: one row per method and stage, means and spreads over runs."""
    text = io.StringIO()
    names = [name for figure in FIGURES for name in (figure, f"{figure}_spread")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "stage", "runs", *names])
    for method, runs in curves.items():
        columns = [mean_and_spread(runs, number) for number in range(len(FIGURES))]
        for stage in range(len(columns[0])):
            writer.writerow([method, stage, len(runs), *(value for column in columns for value in column[stage])])
    return text.getvalue().encode()


def draw_curves(curves: Mapping[str, Listing[Curves]]) -> bytes:
    """Draws mean CLIP-I and forgetting over stages, one line per method, with a band of the spread over runs; a PNG."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    shown = (
        (0, "CLIP-I of the concepts so far"),
        (1, "forgetting from the best score (CLIP-I)"),
    )
    panels: Any = figure.subplots(1, len(shown))
    for panel, (number, title) in zip(panels, shown, strict=True):
        for place, (method, runs) in enumerate(curves.items()):
            means, spreads = zip(*mean_and_spread(runs, number), strict=True)
            stages = range(1, len(means) + 1)
            colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
            line = LINES[place // len(PALETTE) % len(LINES)]
            look = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.6, "linestyle": line}
            panel.plot(stages, means, label=readable(method), **look)
            if any(spreads):
                low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
                high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
                panel.fill_between(stages, low, high, color=colour, alpha=0.10, linewidth=0)
        panel.set_title(title, fontsize=11)
        panel.set_xlabel("concepts learned")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(color="#E5E5E5", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))), frameon=False)
    return as_png(figure)


# ---- the table ------------------------------------------------------------------------------------------------------


def draw_table(rows: Listing[Mapping[str, Any]]) -> bytes:
    """Draws the table, quality above and cost below, the best method of each quality column in bold; a PNG."""
    shown = {
        title: [row for row in rows if any(row[name] is not None for name, _, _ in columns)]
        for title, columns in GROUPS.items()
    }
    heights = [len(lines) + HEADING for lines in shown.values()]
    figure = Figure(figsize=(11, 0.34 * sum(heights) + 0.6), layout="constrained")
    panels: Any = figure.subplots(2, 1, height_ratios=heights)
    for panel, (title, columns) in zip(panels, GROUPS.items(), strict=True):
        rows = shown[title]
        panel.set_axis_off()
        panel.set_title(title, fontsize=12, loc="left", fontweight="bold")
        cells = [[readable(row["method"]), *(value_as_text(row, name) for name, _, _ in columns)] for row in rows]
        headings = ["", *(f"{heading} {'↑' if way == 'up' else '↓'}" for _, heading, way in columns)]
        widths = [0.25, *[0.75 / len(columns)] * len(columns)]
        table = panel.table(cells, colLabels=headings, colWidths=widths, cellLoc="right", bbox=[0, 0, 1, 1])
        table.auto_set_font_size(False)
        table.set_fontsize(9.5)
        for (line, column), cell in table.get_celld().items():
            cell.set_edgecolor("#DDDDDD")
            cell.visible_edges = "B"
            cell.set_height(HEADING if line == 0 else 1)
            cell.set_text_props(ha="left" if column == 0 else "right")
        for column, (name, _, way) in enumerate(columns, start=1):
            line = best_line(rows, name, way) if title == "quality" else None
            if line is not None:
                table[line + 1, column].set_text_props(fontweight="bold")
    return as_png(figure)


def best_line(rows: Listing[Mapping[str, Any]], name: str, way: str) -> int | None:
    """Returns the line of the best method in a column; bounds do not take part. None if no method has a value."""
    values = {
        line: row[name]
        for line, row in enumerate(rows)
        if row["method"] not in (ALONE, CLASS_WORD, IN_WORDS) and row[name] is not None
    }
    if not values:
        return None
    return max(values, key=lambda line: values[line]) if way == "up" else min(values, key=lambda line: values[line])


def value_as_text(row: Mapping[str, Any], name: str) -> str:
    """Returns a value of the table as it is read, with its spread; empty where there is none."""
    value, spread = row[name], row.get(f"{name}_spread")
    if value is None:
        return ""
    if f"{name}_spread" not in row:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}" if value else "0"
    # Adding 0 makes a negative zero a plain one.
    shown = f"{round(value, 3) + 0:.3f}"
    return f"{shown} ± {spread:.3f}" if spread is not None else shown


# ---- what concepts are taken for ------------------------------------------------------------------------------------


def draw_confusion(rows: Listing[Mapping[str, Any]]) -> bytes:
    """Draws what pictures of each concept are taken for, a heat map for each method; a PNG.

    A hatched cell stands for a label that the gallery of the method does not have.

    Args:
        rows: rows of one set, from `rows_of_confusion`.
    """
    methods, asked, seen = (list(dict.fromkeys(row[name] for row in rows)) for name in ("method", "asked", "seen_as"))
    across = min(2, len(methods))  # more could not be read where the page is as wide as a screen
    down = -(-len(methods) // across)
    size = (1.4 + across * (1.6 + 0.36 * len(seen)), 0.8 + down * (1.5 + 0.3 * len(asked)))
    figure = Figure(figsize=size, layout="constrained")
    panels: Any = figure.subplots(down, across, squeeze=False)
    for panel in panels.flat[len(methods) :]:
        panel.set_axis_off()
    image: Any = None
    for panel, method in zip(panels.flat, methods, strict=False):
        shares = {(row["asked"], row["seen_as"]): row["share"] for row in rows if row["method"] == method}
        cells = [[shares.get((one, other), math.nan) for other in seen] for one in asked]
        # Its lightness falls all the way, so that it reads the same in grey.
        image = panel.imshow(cells, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for line, column in product(range(len(asked)), range(len(seen))):
            share = cells[line][column]
            if share >= LEAST_SHARE or (asked[line] == seen[column] and not math.isnan(share)):
                colour = "white" if share > 0.55 else "black"
                panel.text(column, line, f"{share:.2f}", ha="center", va="center", fontsize=7, color=colour)
        panel.patch.set(hatch="////", edgecolor="#B0B0B0")
        panel.set_title(readable(method), fontsize=10)
        panel.set_xticks(range(len(seen)), seen, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
        panel.set_yticks(range(len(asked)), asked, fontsize=8)
        panel.set_xlabel("nearest picture shows", fontsize=9)
        panel.set_ylabel("asked for", fontsize=9)
    figure.colorbar(image, ax=panels, label="share of pictures", shrink=0.6)
    return as_png(figure)


# ---- pictures -------------------------------------------------------------------------------------------------------


def picture_rows(
    runs: Iterable[Run], class_word: Path, in_words: Path | None = None
) -> tuple[list[str], list[tuple[str, list[Image.Image]]]]:
    """Returns prompts, and one picture of every method and concept after the last stage below a picture of the user's.

    Args:
        runs: runs of one set and one seed; the first single prompt of each concept is shown, its first picture.
        class_word: folder of the class word's pictures, for its row.
        in_words: folder of the pictures drawn from the concepts' descriptions; None leaves the row out.

    Returns:
        The prompt of each column; a label and pictures for each row.
    """
    runs = [run for run in runs if run.method != ALONE]
    sequence = Sequence.read(Path(runs[0].sequence))
    tokens = [concept.token for concept in sequence.concepts]
    asked = {
        question.tokens[0]: question
        for question in reversed(questions(sequence, tokens))
        if question.group == "single" and len(question.tokens) == 1
    }
    shown = [concept for concept in sequence.concepts if concept.token in asked]
    names = [f"single-{asked[concept.token].number:02d}-seed-0.png" for concept in shown]
    drawn = [Image.open(class_word / name).convert("RGB") for name in names]
    size = drawn[0].size
    rows = [[ImageOps.fit(read_photos(concept)[0], size) for concept in shown], drawn]
    for run in runs:
        folder = RunFolder(run.folder).evaluation / "images" / f"stage-{len(tokens) - 1:02d}"
        rows.append([Image.open(folder / name).convert("RGB") for name in names])
    labels = ["the user's picture", CLASS_WORD, *(readable(run.method) for run in runs)]
    if in_words is not None:
        rows.insert(2, [Image.open(in_words / name).convert("RGB") for name in names])
        labels.insert(2, IN_WORDS)
    return [asked[concept.token].prompt for concept in shown], list(zip(labels, rows, strict=True))


def readable(method: str) -> str:
    """Returns the name of a method or bound as people write it."""
    bounds = {
        ALONE: "each concept alone",
        CLASS_WORD: "class word, base model",
        IN_WORDS: "in words, base model",
    }
    return bounds.get(method) or display_name(method)


def as_png(figure: Figure) -> bytes:
    """Returns a figure as PNG; equal figures give equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
