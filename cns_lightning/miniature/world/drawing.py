"""Drawing one thing: silhouette, patterned skin, details, shading and outline."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from cns_lightning.miniature.world.vocabulary import RGB, Thing, luminance, mix

CANVAS = 128
MARGIN = 0.28  # room around the unit square of a tile, for traits
WHITE: RGB = (250, 250, 250)
DARK: RGB = (28, 24, 34)

Box = tuple[float, float, float, float]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Anchor:
    """Where traits attach to a drawing, in unit coordinates."""

    head: tuple[float, float]
    radius: float
    neck: tuple[float, float, float]
    tail: tuple[float, float]
    back: tuple[float, float]


class Sketch:
    """A tile on which one thing is drawn in unit coordinates, y downwards."""

    def __init__(self, thing: Thing, pixels: float) -> None:
        """Prepares the silhouette and the patterned skin for a thing `pixels` wide."""
        self.unit = pixels
        self.colour = thing.colour
        self.second = thing.pattern_colour
        light_body = luminance(thing.colour) >= 62
        self.ink = mix(thing.colour, DARK, 0.78) if light_body else mix(thing.colour, WHITE, 0.55)
        self.shade = mix(thing.colour, DARK, 0.38) if light_body else mix(thing.colour, WHITE, 0.22)
        self.light = mix(thing.colour, WHITE, 0.55) if light_body else mix(thing.colour, WHITE, 0.4)
        side = max(8, round(pixels * (1 + 2 * MARGIN)))
        self.silhouette = Image.new("L", (side, side), 0)
        self.skin = Image.new("RGB", (side, side), thing.colour)
        self._outer = ImageDraw.Draw(self.silhouette)
        self._inner = ImageDraw.Draw(self.skin)
        draw_pattern(self, thing.pattern)

    def scaled(self, points: Points) -> list[tuple[float, float]]:
        """Turns unit points into tile pixels."""
        return [((x + MARGIN) * self.unit, (y + MARGIN) * self.unit) for x, y in points]

    def width(self, width: float) -> int:
        """Turns a unit width into whole pixels, at least one."""
        return max(1, round(width * self.unit))

    def ellipse(self, box: Box, fill: RGB | None = None) -> None:
        """Draws an ellipse as patterned body or, with a fill, as a detail."""
        corners = self.scaled([box[:2], box[2:]])
        self._outer.ellipse(corners, fill=255)
        if fill is not None:
            self._inner.ellipse(corners, fill=fill)

    def circle(self, x: float, y: float, radius: float, fill: RGB | None = None) -> None:
        """Draws a circle around a centre."""
        self.ellipse((x - radius, y - radius, x + radius, y + radius), fill)

    def polygon(self, points: Points, fill: RGB | None = None) -> None:
        """Draws a polygon as patterned body or, with a fill, as a detail."""
        corners = self.scaled(points)
        self._outer.polygon(corners, fill=255)
        if fill is not None:
            self._inner.polygon(corners, fill=fill)

    def block(self, box: Box, fill: RGB | None = None, radius: float = 0.0) -> None:
        """Draws a rectangle with round corners."""
        corners = self.scaled([box[:2], box[2:]])
        self._outer.rounded_rectangle(corners, radius * self.unit, fill=255)
        if fill is not None:
            self._inner.rounded_rectangle(corners, radius * self.unit, fill=fill)

    def line(self, points: Points, width: float, fill: RGB | None = None, inside: bool = False) -> None:
        """Draws a thick line with round ends, `inside` leaving the silhouette alone."""
        corners = self.scaled(points)
        pixels = self.width(width)
        if not inside:
            self._outer.line(corners, fill=255, width=pixels, joint="curve")
            for x, y in (corners[0], corners[-1]):
                self._outer.ellipse((x - pixels / 2, y - pixels / 2, x + pixels / 2, y + pixels / 2), fill=255)
        if fill is not None:
            self._inner.line(corners, fill=fill, width=pixels, joint="curve")

    def arc(self, box: Box, start: float, end: float, width: float, fill: RGB) -> None:
        """Draws a crease along an ellipse, inside the silhouette only."""
        self._inner.arc(self.scaled([box[:2], box[2:]]), start, end, fill=fill, width=self.width(width))

    def eye(self, x: float, y: float, radius: float, look: float = 0.0) -> None:
        """Draws an eye looking sideways by `look` of its radius."""
        self.circle(x, y, radius, WHITE)
        self.circle(x + look * radius, y + 0.1 * radius, radius * 0.62, DARK)
        self.circle(x + (look - 0.25) * radius, y - 0.25 * radius, radius * 0.22, WHITE)


def star_points(x: float, y: float, outer: float, inner: float, tips: int = 5) -> list[tuple[float, float]]:
    """Returns the corners of a star standing on two tips."""
    return [
        (
            x + (inner if i % 2 else outer) * math.sin(math.pi * i / tips),
            y - (inner if i % 2 else outer) * math.cos(math.pi * i / tips),
        )
        for i in range(2 * tips)
    ]


def _stripes(sketch: Sketch, draw: ImageDraw.ImageDraw) -> None:
    """Paints slanted stripes."""
    for i in range(-8, 14):
        start = i * 0.2 - MARGIN
        draw.line(sketch.scaled([(start, -MARGIN), (start + 0.7, 1 + MARGIN)]), sketch.second, sketch.width(0.078))


def _dots(sketch: Sketch, draw: ImageDraw.ImageDraw) -> None:
    """Paints round dots in offset rows."""
    for row in range(-2, 9):
        for column in range(-2, 8):
            x, y = column * 0.22 + 0.11 * (row % 2) + 0.05, row * 0.17 + 0.05
            draw.ellipse(sketch.scaled([(x - 0.062, y - 0.062), (x + 0.062, y + 0.062)]), fill=sketch.second)


def _checks(sketch: Sketch, draw: ImageDraw.ImageDraw) -> None:
    """Paints a chessboard."""
    for row in range(-2, 9):
        for column in range(-2, 9):
            if (row + column) % 2:
                x, y = column * 0.16, row * 0.16
                draw.rectangle(sketch.scaled([(x, y), (x + 0.16, y + 0.16)]), fill=sketch.second)


def _zigzag(sketch: Sketch, draw: ImageDraw.ImageDraw) -> None:
    """Paints level zigzag bands."""
    for row in range(-1, 6):
        points = [(-MARGIN + i * 0.12, row * 0.25 + (0.07 if i % 2 else -0.05)) for i in range(14)]
        draw.line(sketch.scaled(points), sketch.second, sketch.width(0.09), joint="curve")


def _half(sketch: Sketch, draw: ImageDraw.ImageDraw) -> None:
    """Paints the right half in the second colour."""
    draw.rectangle(sketch.scaled([(0.5, -MARGIN), (1 + MARGIN, 1 + MARGIN)]), fill=sketch.second)


def _stars(sketch: Sketch, draw: ImageDraw.ImageDraw) -> None:
    """Paints small stars in offset rows."""
    for row in range(-1, 6):
        for column in range(-1, 6):
            x, y = column * 0.28 + 0.14 * (row % 2), row * 0.23 + 0.08
            draw.polygon(sketch.scaled(star_points(x, y, 0.115, 0.045)), fill=sketch.second)


def _rings(sketch: Sketch, draw: ImageDraw.ImageDraw) -> None:
    """Paints rings around the middle."""
    for i in range(6, 0, -1):
        radius = i * 0.13 - 0.04
        box = sketch.scaled([(0.5 - radius, 0.58 - radius), (0.5 + radius, 0.58 + radius)])
        draw.ellipse(box, fill=sketch.second if i % 2 else sketch.colour)


PATTERN_DRAWERS: dict[str, Callable[[Sketch, ImageDraw.ImageDraw], None]] = {
    "striped": _stripes,
    "dotted": _dots,
    "checked": _checks,
    "zigzag": _zigzag,
    "half": _half,
    "starred": _stars,
    "ringed": _rings,
}


def draw_pattern(sketch: Sketch, pattern: str) -> None:
    """Fills the skin of a sketch with a pattern; plain leaves it alone."""
    if pattern != "plain":
        PATTERN_DRAWERS[pattern](sketch, ImageDraw.Draw(sketch.skin))


def _shaded(skin: Image.Image, silhouette: Image.Image, pixels: float) -> Image.Image:
    """Makes a flat skin look round, lit from the top left."""
    step = max(2, round(pixels * 0.07))
    soft = silhouette.filter(ImageFilter.BoxBlur(step))
    shadow = ImageChops.offset(soft, -step, -step).point(lambda value: (255 - value) * 0.5)
    glow = ImageChops.offset(soft, step, step).point(lambda value: (255 - value) * 0.38)
    skin.paste((20, 15, 50), mask=shadow)
    skin.paste((255, 255, 245), mask=glow)
    return skin


def outline_colour(colour: RGB, backdrop: float) -> RGB:
    """Chooses an outline that separates a body from a backdrop of that brightness."""
    if backdrop < 95 and luminance(colour) < 125:
        return mix(colour, WHITE, 0.8)
    return mix(colour, DARK, 0.85)


def paste_thing(
    canvas: Image.Image,
    thing: Thing,
    draw: Callable[[Sketch], None],
    backdrop: float = 150.0,
    flat: bool = False,
    outline: int = 2,
) -> None:
    """Draws a thing with `draw` and puts it on the canvas with outline, shading and a ground shadow."""
    pixels = thing.size * canvas.width
    sketch = Sketch(thing, pixels)
    draw(sketch)
    skin, silhouette = sketch.skin, sketch.silhouette
    if thing.flip:
        skin, silhouette = ImageOps.mirror(skin), ImageOps.mirror(silhouette)
    across, down = thing.stretch**-0.5, thing.stretch**0.5
    if thing.stretch != 1:
        side = (round(skin.width * across), round(skin.height * down))
        skin, silhouette = skin.resize(side), silhouette.resize(side)
    if not flat:
        skin = _shaded(skin, silhouette, pixels)
    bottom = thing.y * canvas.height + pixels / 2
    centre_x, centre_y = thing.x * canvas.width, bottom - pixels * down / 2
    if not flat and bottom > 0.72 * canvas.height:
        shadow = Image.new("L", canvas.size, 0)
        half, flatness = pixels * across * 0.46, pixels * 0.07
        ImageDraw.Draw(shadow).ellipse(
            (centre_x - half, bottom - flatness, centre_x + half, bottom + flatness), fill=80
        )
        canvas.paste((10, 10, 40), mask=shadow)
    wide = silhouette.filter(ImageFilter.BoxBlur(outline)).point(lambda value: min(255, value * 6))  # type: ignore
    place = (round(centre_x - silhouette.width / 2), round(centre_y - silhouette.height / 2))
    canvas.paste(outline_colour(thing.colour, backdrop), place, wide)
    canvas.paste(skin, place, silhouette)
