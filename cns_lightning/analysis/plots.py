"""The pictures of an analysis: readable in grey, axes named, as PNG and SVG."""

from __future__ import annotations

import io
from itertools import product
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from cns_lightning.analysis.concepts import ALL, shares_of_blocks
from cns_lightning.analysis.palette import BLACK, COLOURS
from cns_lightning.analysis.similarity import said

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cns_lightning.analysis.similarity import Similarity

PALETTE = (BLACK, *COLOURS)
HATCHES = ("", "////", "....", "xxxx", "----", "++++", "oooo", "||||")
"""Beside a grey that falls, so that bars read the same without colour."""


def files_of(name: str, figure: Figure) -> dict[str, bytes]:
    """Returns a figure as PNG and SVG by file name; equal figures give equal bytes."""
    found = {}
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        for ending, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending, dpi=120, metadata=metadata)
            found[f"{name}.{ending}"] = buffer.getvalue()
    return found


def heat_map(panel: Any, cells: Sequence[Sequence[float]], labels: Sequence[str], highest: float = 1.0) -> Any:
    """Draws a square matrix with its numbers; returns the image, for a colour bar."""
    image = panel.imshow(cells, cmap="Blues", vmin=0, vmax=highest)
    for row, column in product(range(len(labels)), repeat=2):
        colour = "white" if cells[row][column] > 0.6 * highest else "black"
        panel.text(column, row, f"{cells[row][column]:.2f}", ha="center", va="center", fontsize=6.5, color=colour)
    panel.set_xticks(range(len(labels)), labels, fontsize=8, rotation=60, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(labels)), labels, fontsize=8)
    return image


def draw_similarity(matrices: Sequence[Similarity]) -> Figure:
    """Draws the matrices of a family, base neurons beside concept neurons; numbers stand for the queries."""
    figure = Figure(figsize=(5.6 * len(matrices), 5.6), layout="constrained")
    panels: Any = figure.subplots(1, len(matrices), squeeze=False)
    for panel, matrix in zip(panels.flat, matrices, strict=True):
        numbers = [str(number + 1) for number in range(len(matrix.family.queries))]
        heat_map(panel, matrix.iou.tolist(), numbers)
        panel.set_title(f"{matrix.which} neurons: Spearman {said(matrix.spearman, 2)}", fontsize=10)
        panel.set_xlabel("query")
        panel.set_ylabel("query")
    figure.suptitle(f"overlap (IoU) of the neurons of {matrices[0].family.name}", fontsize=11)
    return figure


def draw_decay(matrices: Sequence[Similarity]) -> Figure:
    """Draws overlap against the words by which queries differ, a point for every pair of every family."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel: Any = figure.subplots()
    looks = {"base": ("o", BLACK), "concept": ("^", COLOURS[0])}
    for which, (marker, colour) in looks.items():
        pairs = [pair for matrix in matrices if matrix.which == which for pair in matrix.pairs()]
        if pairs:
            words, ious = zip(*pairs, strict=True)
            panel.plot(words, ious, marker, color=colour, markersize=4, alpha=0.6, label=f"{which} neurons")
    panel.set_xlabel("words by which two queries differ")
    panel.set_ylabel("overlap of their neurons (IoU)")
    panel.set_ylim(0, 1)
    panel.legend(frameon=False)
    _plain(panel)
    return figure


def draw_overlap(tokens: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the overlap of every pair of concepts."""
    numbers = {token: number for number, token in enumerate(tokens)}
    cells = [[1.0 if row == column else 0.0 for column in numbers] for row in numbers]
    for pair in pairs:
        one, two = numbers[pair["one"]], numbers[pair["other"]]
        cells[one][two] = cells[two][one] = pair["iou"]
    side = 2.0 + 0.6 * len(tokens)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    panel: Any = figure.subplots()
    figure.colorbar(heat_map(panel, cells, list(tokens)), ax=panel, label="overlap (IoU)", shrink=0.7)
    panel.set_xlabel("concept")
    panel.set_ylabel("concept")
    return figure


def draw_places(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws in which blocks the neurons of every concept lie, keys and values apart, as shares of all its neurons."""
    concepts = list(dict.fromkeys(row["concept"] for row in rows))
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    kinds = [(block, projection) for block in sorted(blocks) for projection in ("keys", "values")]
    figure = Figure(figsize=(8.4, 1.6 + 0.45 * len(concepts)), layout="constrained")
    panel: Any = figure.subplots()
    start = dict.fromkeys(concepts, 0.0)
    found = {concept: shares_of_blocks(rows, concept) for concept in concepts}
    for number, kind in enumerate(kinds):
        widths = [found[concept].get(kind, 0.0) for concept in concepts]
        grey = 0.95 - 0.6 * number / max(1, len(kinds) - 1)
        panel.barh(
            concepts, widths, left=list(start.values()), color=str(grey), edgecolor="black", linewidth=0.5,
            hatch=HATCHES[number % len(HATCHES)], label=f"{kind[0]} {kind[1]}",
        )  # fmt: skip
        start = {concept: start[concept] + width for concept, width in zip(concepts, widths, strict=True)}
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    panel.set_xlabel("share of the concept's neurons")
    panel.set_ylabel("concept")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def draw_capacity(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws what is left untouched after every concept, and how much of every concept was new."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel: Any = figure.subplots()
    lines = (
        ("untouched", "weights that no concept has moved", "o-"),
        ("fullest_row", "the same, in the row with the least left", "s--"),
        ("new", "neurons of the concept that nobody had moved", "^:"),
    )
    numbers = range(1, len(rows) + 1)
    for number, (name, label, look) in enumerate(lines):
        panel.plot(numbers, [row[name] for row in rows], look, color=PALETTE[number], markersize=5, label=label)
    panel.set_xlabel("concepts learned")
    panel.set_ylabel("share")
    panel.set_ylim(0, 1.02)  # room for the marker at 1
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.legend(frameon=False, fontsize=8)
    _plain(panel)
    return figure


def draw_sensitivity(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws density and overlap against what the selection depends on, a panel for each setting."""
    names = {
        "share": "share of each row that counts as active",
        "threshold": "share of prompts that make a neuron general",
        "prompts": "calibration prompts",
    }
    figure = Figure(figsize=(4.2 * len(names), 3.8), layout="constrained")
    panels: Any = figure.subplots(1, len(names))
    lines = (
        ("density", "density of concept neurons", "o-"),
        ("mean_pairwise", "overlap of two concepts", "s--"),
        ("general_iou", "general neurons: IoU with all prompts", "^:"),
        ("concept_iou", "concept neurons: IoU with all prompts", "D-."),
    )
    for panel, (name, title) in zip(panels, names.items(), strict=True):
        own = [row for row in rows if row["changed"] == name]
        for number, (key, label, look) in enumerate(lines):
            points = [(row["value"], row[key]) for row in own if row.get(key) is not None]
            if points:
                panel.plot(*zip(*points, strict=True), look, color=PALETTE[number], markersize=4, label=label)
        panel.set_xlabel(title, fontsize=9)
        panel.set_ylim(0, None)
        _plain(panel)
    panels[0].set_ylabel("share or IoU")
    handles, labels = panels[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def draw_shares(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws which share of the key and value weights every concept moves."""
    shown = [row for row in rows if row["concept"] != ALL]
    figure = Figure(figsize=(6.4, 1.2 + 0.35 * len(rows)), layout="constrained")
    panel: Any = figure.subplots()
    panel.barh([row["concept"] for row in shown], [100 * row["key_value_share"] for row in shown], color="0.6")
    panel.axvline(5, color="black", linestyle="--", linewidth=1, label="the paper: about 5 %")
    panel.invert_yaxis()
    panel.set_xlabel("% of key and value weights")
    panel.set_ylabel("concept")
    figure.legend(loc="outside upper right", frameon=False, fontsize=8)  # the bars fill the panel
    _plain(panel)
    return figure


def _plain(panel: Any) -> None:
    panel.grid(color="#E5E5E5", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
