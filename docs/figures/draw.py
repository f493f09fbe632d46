"""Draws the diagrams of docs/cns.md and docs/formats.md as SVG, in colours that follow the reader's light or dark mode.

``python docs/figures/draw.py`` writes them beside this file. Every drawing has a ground of its own, so that it can be
read on a page of the other mode as well.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

STYLE = """\
  <style>
    text { font: 15px system-ui, sans-serif; fill: #1f2328; }
    .small { font-size: 13px; }
    .strong { font-weight: 600; }
    .ground { fill: #ffffff; stroke: #d0d7de; }
    .box { fill: #f1f3f5; stroke: #6e7781; }
    .inner { fill: #ffffff; stroke: #6e7781; }
    .line { stroke: #57606a; stroke-width: 1.5; fill: none; }
    .head { fill: #57606a; }
    .none { fill: #eceff1; }
    .base { fill: #4c8edb; }
    .general { fill: #8c959f; }
    .trained { fill: #ffb454; stroke: #b35900; }
    .on { fill: #1f2328; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .ground { fill: #161b22; stroke: #30363d; }
      .box { fill: #2a313b; stroke: #8b949e; }
      .inner { fill: #161b22; stroke: #8b949e; }
      .line { stroke: #a8b1bb; }
      .head { fill: #a8b1bb; }
      .none { fill: #272e38; }
      .general { fill: #8b949e; }
      .trained { fill: #d98324; stroke: #ffc078; }
      .on { fill: #1f2328; }
    }
  </style>
"""
CELL = 18
ROWS, COLUMNS = 6, 10
KEPT = math.floor(0.30 * COLUMNS)
PROMPTS, VOTES = 20, 0.75

Grid = list[list[bool]]


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Returns a line of text; a pair of ~ around letters lowers them."""
    parts = words.split("~")
    lowered = "".join(
        f'<tspan dy="4" font-size="80%">{part}</tspan><tspan dy="-4">&#8203;</tspan>' if number % 2 else part
        for number, part in enumerate(parts)
    )
    return f'  <text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{lowered}</text>\n'


def box(x: float, y: float, width: float, height: float, kind: str = "box", radius: int = 6) -> str:
    """Returns a rectangle."""
    return f'  <rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" class="{kind}"/>\n'


def arrow(*points: tuple[float, float]) -> str:
    """Returns a line through points with a head at its end."""
    (x0, y0), (x1, y1) = points[-2:]
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    back = (x1 - 9 * dx, y1 - 9 * dy)
    head = [(x1, y1), (back[0] - 5 * dy, back[1] + 5 * dx), (back[0] + 5 * dy, back[1] - 5 * dx)]
    path = " ".join(f"{x:g},{y:g}" for x, y in [*points[:-1], back])
    tip = " ".join(f"{x:.1f},{y:.1f}" for x, y in head)
    return f'  <polyline points="{path}" class="line"/>\n  <polygon points="{tip}" class="head"/>\n'


def drawing(width: int, height: int, title: str, *parts: str) -> str:
    """Returns a whole SVG file."""
    ground = box(0.5, 0.5, width - 1, height - 1, "ground", 8)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'{head} role="img">\n  <title>{title}</title>\n{STYLE}{ground}{"".join(parts)}</svg>\n'


# ---- which neurons belong to a concept ------------------------------------------------------------------------------


def top(scores: list[list[float]]) -> Grid:
    """Marks the largest 30 % of every row, ties by lower column."""
    kept = []
    for row in scores:
        order = sorted(range(COLUMNS), key=lambda column: (-row[column], column))[:KEPT]
        kept.append([column in order for column in range(COLUMNS)])
    return kept


def made_up() -> tuple[list[list[float]], Grid, Grid]:
    """Returns importance for a concept, its base neurons and the general ones, by the rules on made-up numbers."""
    draw = random.Random(5)
    weights = [[abs(draw.gauss(0, 1)) for _ in range(COLUMNS)] for _ in range(ROWS)]
    usual = [math.exp(draw.gauss(0, 0.4)) for _ in range(COLUMNS)]

    def scores(spread: float) -> list[list[float]]:
        norms = [each * math.exp(draw.gauss(0, spread)) for each in usual]
        return [[weight * norm for weight, norm in zip(row, norms, strict=True)] for row in weights]

    concept, votes = scores(0.5), [top(scores(0.25)) for _ in range(PROMPTS)]
    general = [
        [sum(vote[row][column] for vote in votes) >= VOTES * PROMPTS for column in range(COLUMNS)]
        for row in range(ROWS)
    ]
    return concept, top(concept), general


def cells(x: float, y: float, fills: list[list[tuple[str, float]]]) -> str:
    """Returns a matrix; every cell has a class and an opacity."""
    parts = []
    for row, listed in enumerate(fills):
        for column, (kind, opacity) in enumerate(listed):
            place = f'x="{x + column * CELL}" y="{y + row * CELL}" width="{CELL - 2}" height="{CELL - 2}" rx="2"'
            parts.append(f'  <rect {place} class="none"/>\n')
            if kind:
                parts.append(f'  <rect {place} class="{kind}" opacity="{opacity:.2f}"/>\n')
    return "".join(parts)


def marked(grid: Grid, kind: str) -> list[list[tuple[str, float]]]:
    """Returns the cells of a mask."""
    return [[(kind, 1.0) if is_in else ("", 1.0) for is_in in row] for row in grid]


def selection() -> str:
    """Draws how the neurons of a concept are selected."""
    scores, base, general = made_up()
    concept = [
        [is_in and not out for is_in, out in zip(*rows, strict=True)] for rows in zip(base, general, strict=True)
    ]
    largest = max(max(row) for row in scores)
    shades = [[("base", score / largest) for score in row] for row in scores]
    panels = [
        ("importance", "for the concept's prompt", shades),
        ("base neurons", "top 30 % of each row", marked(base, "base")),
        ("general neurons", "base for most other prompts", marked(general, "general")),
        ("concept neurons", "base and not general", marked(concept, "trained")),
    ]
    parts, step = [], COLUMNS * CELL + 44
    for number, (name, said, fills) in enumerate(panels):
        x = 24 + number * step
        parts += [text(x, 34, name, "strong"), text(x, 54, said, "small"), cells(x, 70, fills)]
        if sign := ["", "&#8594;", "&#8722;", "="][number]:
            parts.append(text(x - 23, 70 + ROWS * CELL / 2 + 4, sign, "strong", "middle"))
    return drawing(
        4 * step + 4,
        70 + ROWS * CELL + 20,
        "From importance to base, general and concept neurons of one matrix",
        *parts,
    )


# ---- a training step ------------------------------------------------------------------------------------------------


def training() -> str:
    """Draws what a training step reads, and what it moves."""
    parts = [
        box(20, 40, 190, 60), text(115, 65, "prompt", "strong", "middle"),
        text(115, 86, "a photo of a &lt;new1&gt; cat", "small", "middle"),
        arrow((210, 70), (258, 70)),
        box(260, 24, 190, 104), text(355, 50, "text encoder", "strong", "middle"),
        box(276, 76, 158, 36, "trained"), text(355, 99, "row of &lt;new1&gt;", "small on", "middle"),
        box(260, 176, 190, 60), text(355, 201, "picture and noise", "strong", "middle"),
        text(355, 222, "noisy latents", "small", "middle"), arrow((450, 206), (518, 206)),
        box(520, 24, 232, 222), text(572, 234, "UNet", "strong", "middle"),
        box(540, 40, 192, 122, "inner"), arrow((450, 70), (538, 70)),
        text(486, 60, "X", "strong", "middle"), text(636, 64, "every cross-attention", "small", "middle"),
        text(636, 94, "K = X W~k~&#7488;", "strong", "middle"), text(636, 122, "V = X W~v~&#7488;", "strong", "middle"),
        text(636, 148, "reads the same X", "small", "middle"),
        arrow((752, 70), (798, 70)),
        box(800, 40, 150, 60), text(875, 65, "denoising loss", "strong", "middle"),
        text(875, 86, "L~diff~", "", "middle"),
    ]  # fmt: skip
    parts += [box(548 + number * 11, 290, 11, 26, "trained", 1) for number in range(16)]
    parts += [
        arrow((636, 288), (636, 164)),
        text(646, 272, "added on the mask", "small"),
        text(636, 338, "one flat vector d for all matrices", "small", "middle"),
        arrow((724, 303), (798, 303)),
        box(800, 273, 150, 60), text(875, 298, "regularization", "strong", "middle"),
        text(875, 319, "L~reg~", "", "middle"),
        box(24, 290, 26, 26, "trained", 3), text(60, 308, "trained: 5 % of the key and value weights,", "small"),
        text(60, 326, "and the token's row of the embedding table", "small"),
        box(24, 252, 26, 26, "box", 3), text(60, 270, "frozen", "small"),
    ]  # fmt: skip
    return drawing(
        970, 356, "One training step: the flat vector of values and the token's row are all that moves", *parts
    )


# ---- what is kept ---------------------------------------------------------------------------------------------------


def registry() -> str:
    """Draws how models are made from base model and registry, and how concepts are undone."""
    rows = [
        ("learned", ["&lt;new1&gt;", "&lt;new2&gt;", "&lt;new3&gt;"], "the model after &lt;new3&gt;"),
        ("--rollback &lt;new2&gt;", ["&lt;new1&gt;", "&lt;new2&gt;", ""], "the model after &lt;new2&gt;"),
        ("--remove &lt;new2&gt;", ["&lt;new1&gt;", "", "&lt;new3&gt;"], "base model and the other two"),
    ]
    parts = []
    for number, (name, tokens, said) in enumerate(rows):
        y = 24 + number * 74
        parts += [text(24, y + 31, name, "strong"), box(190, y, 130, 50), text(255, y + 31, "base model", "", "middle")]
        for place, token in enumerate(tokens):
            x = 356 + place * 138
            if token:
                parts += [text(x - 18, y + 31, "+", "strong", "middle"), box(x, y, 102, 50, "trained")]
                parts += [text(x + 51, y + 22, token, "small on", "middle")]
                parts += [text(x + 51, y + 40, "mask, values", "small on", "middle")]
        parts += [text(752, y + 31, "=", "strong", "middle"), text(774, y + 31, said)]
    return drawing(
        1010, 24 + 3 * 74, "Base model plus records gives the model; leaving records out undoes them", *parts
    )


DRAWINGS = {"selection": selection, "training": training, "registry": registry}


def main() -> None:
    """Writes every drawing."""
    for name, draw in DRAWINGS.items():
        (Path(__file__).parent / f"{name}.svg").write_text(draw(), "utf-8")


if __name__ == "__main__":
    main()
