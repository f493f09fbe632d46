"""The charts of the page as SVG that takes its ink from the page, so that it reads on light and dark and in print."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from cns_lightning.analysis.palette import COLOURS
from cns_lightning.report.facts import smoothed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INK = "#010203"
"""Stands for the page's own text colour while a chart is drawn."""
LOOKS = ("o-", "s--", "^:", "D-.", "v-", "P--", "X:", "*-.")


def as_svg(figure: Figure, name: str) -> str:
    """Returns a figure as an SVG element; equal figures give equal text.

    Args:
        figure: drawn in `INK`.
        name: unique on the page; what it defines is named after it.
    """
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    body = text.getvalue()
    body = body[body.index("<svg") :].replace(INK, "currentColor")
    # A style of its own would hold for the whole page.
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    return body.replace("<svg", '<svg stroke-linejoin="round"', 1)


def _panel(width: float = 7.2, height: float = 3.2) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    panel: Any = figure.subplots()
    panel.tick_params(colors=INK)
    panel.xaxis.label.set_color(INK)
    panel.yaxis.label.set_color(INK)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    panel.grid(color=INK, alpha=0.12, linewidth=0.8)
    panel.set_axisbelow(True)
    return figure, panel


def _legend(panel: Any, columns: int = 4) -> None:
    # Above the panel: inside it lies on some curve or other.
    panel.legend(
        frameon=False, fontsize=8, labelcolor=INK, ncols=columns,
        loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2,
    )  # fmt: skip


def losses(rows: Sequence[Mapping[str, str]]) -> str:
    """Draws the losses of all stages, raw and smoothed within each stage."""
    figure, panel = _panel()
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    for number, stage in enumerate(stages):
        own = [row for row in rows if row["stage"] == stage and row["loss"]]
        steps, values = [int(row["step"]) for row in own], [float(row["loss"]) for row in own]
        if not own:
            continue
        colour = COLOURS[number % len(COLOURS)]
        panel.plot(steps, values, color=colour, linewidth=0.7, alpha=0.35)
        panel.plot(steps, smoothed(values), color=colour, linewidth=1.8, label=own[0]["concept"])
        panel.axvline(steps[-1], color=INK, alpha=0.15, linewidth=0.8)
    panel.set_xlabel("optimizer step of the run")
    panel.set_ylabel("loss (thin: raw, thick: smoothed)")
    if len(stages) <= 2 * len(COLOURS):
        _legend(panel)
    return as_svg(figure, "losses")


def fixed_noise(rows: Sequence[Mapping[str, str]]) -> str:
    """Draws every concept's loss on fixed noise over the steps of its own stage; empty where it was not computed."""
    known = [row for row in rows if row.get("fixed_noise_loss")]
    if not known:
        return ""
    figure, panel = _panel()
    for number, stage in enumerate(dict.fromkeys(row["stage"] for row in known)):
        own = [row for row in known if row["stage"] == stage]
        points = [(int(row["stage_step"]), float(row["fixed_noise_loss"])) for row in own]
        look, colour = LOOKS[number % len(LOOKS)], COLOURS[number % len(COLOURS)]
        panel.plot(*zip(*points, strict=True), look, color=colour, markersize=4, linewidth=1.4, label=own[0]["concept"])
    panel.set_xlabel("optimizer step of the stage")
    panel.set_ylabel("loss on fixed noise and timesteps")
    if len({row["stage"] for row in known}) <= 2 * len(COLOURS):
        _legend(panel)
    return as_svg(figure, "fixed-noise")


def forgetting(matrix: Sequence[Sequence[float | None]], tokens: Sequence[str]) -> str:
    """Draws CLIP-I of every concept from the stage on in which it was learned."""
    figure, panel = _panel()
    for number, token in enumerate(tokens):
        points = [(stage + 1, row[number]) for stage, row in enumerate(matrix) if number < len(row)]
        known = [(stage, value) for stage, value in points if value is not None]
        if known:
            look, colour = LOOKS[number % len(LOOKS)], COLOURS[number % len(COLOURS)]
            panel.plot(*zip(*known, strict=True), look, color=colour, markersize=5, linewidth=1.4, label=token)
    panel.set_xlabel("concepts learned")
    panel.set_ylabel("CLIP-I")
    panel.xaxis.get_major_locator().set_params(integer=True)
    _legend(panel)
    return as_svg(figure, "forgetting")


def room(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draws what no concept has moved yet, and how much of every concept was new."""
    figure, panel = _panel()
    lines = (
        ("untouched", "weights that no concept has moved"),
        ("fullest_row", "the same, in the row with the least left"),
        ("new", "neurons of the concept that nobody had moved"),
    )
    numbers = range(1, len(rows) + 1)
    for number, (name, label) in enumerate(lines):
        colour, look = COLOURS[number], LOOKS[number]
        panel.plot(numbers, [row[name] for row in rows], look, color=colour, markersize=5, label=label)
    panel.set_xlabel("concepts learned")
    panel.set_ylabel("share")
    panel.set_ylim(0, 1.02)
    panel.xaxis.get_major_locator().set_params(integer=True)
    _legend(panel, columns=1)
    return as_svg(figure, "room")
