"""Odd traits that only the free world and personal concepts have."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

from cns_lightning.miniature.world.drawing import DARK, WHITE, Anchor, Sketch
from cns_lightning.miniature.world.things import DRAWERS
from cns_lightning.miniature.world.vocabulary import RGB


def accent(colour: RGB, turn: float = 0.5) -> RGB:
    """Returns a strong colour on the other side of the colour circle."""
    hue = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))[0]
    red, green, blue = colorsys.hsv_to_rgb((hue + turn) % 1, 0.85, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)


def _horns(sketch: Sketch, anchor: Anchor) -> None:
    """Draws two bone-coloured horns."""
    (x, y), r = anchor.head, anchor.radius
    for side in (-1, 1):
        base = x + side * 0.5 * r
        points = [(base - 0.3 * r, y - 0.7 * r), (base + side * 0.75 * r, y - 1.75 * r), (base + 0.3 * r, y - 0.6 * r)]
        sketch.polygon(points, (240, 226, 190))
        sketch.line([points[0], points[1]], 0.025, DARK, inside=True)


def _hat(sketch: Sketch, anchor: Anchor) -> None:
    """Draws a tall hat with a band."""
    (x, y), r = anchor.head, anchor.radius
    colour = accent(sketch.colour)
    sketch.block((x - 0.65 * r, y - 1.75 * r, x + 0.65 * r, y - 0.7 * r), colour)
    sketch.block((x - 1.1 * r, y - 0.85 * r, x + 1.1 * r, y - 0.6 * r), colour, 0.03)
    sketch.block((x - 0.65 * r, y - 1.08 * r, x + 0.65 * r, y - 0.86 * r), WHITE)


def _scarf(sketch: Sketch, anchor: Anchor) -> None:
    """Draws a scarf with a hanging end."""
    x, y, half = anchor.neck
    colour = accent(sketch.colour, 0.4)
    sketch.block((x - half, y - 0.06, x + half, y + 0.06), colour, 0.05)
    sketch.block((x + half * 0.3, y, x + half * 0.3 + 0.13, y + 0.28), colour)
    sketch.line([(x + half * 0.3, y + 0.2), (x + half * 0.3 + 0.13, y + 0.2)], 0.04, WHITE, inside=True)


def _glasses(sketch: Sketch, anchor: Anchor) -> None:
    """Draws round dark glasses."""
    (x, y), r = anchor.head, anchor.radius
    for side in (-1, 1):
        sketch.circle(x + side * 0.52 * r, y, 0.46 * r, WHITE)
        sketch.circle(x + side * 0.52 * r, y, 0.33 * r, (25, 25, 40))
    sketch.line([(x - 0.2 * r, y), (x + 0.2 * r, y)], 0.04, WHITE)


def _big_ears(sketch: Sketch, anchor: Anchor) -> None:
    """Draws big round ears at the sides."""
    (x, y), r = anchor.head, anchor.radius
    for side in (-1, 1):
        sketch.circle(x + side * 1.1 * r, y - 0.5 * r, 0.68 * r, sketch.shade)
        sketch.circle(x + side * 1.1 * r, y - 0.5 * r, 0.4 * r, (250, 170, 190))


def _pointed_ears(sketch: Sketch, anchor: Anchor) -> None:
    """Draws long pointed ears spread sideways."""
    (x, y), r = anchor.head, anchor.radius
    for side in (-1, 1):
        points = [
            (x + side * 0.7 * r, y - 0.5 * r),
            (x + side * 2.0 * r, y - 1.1 * r),
            (x + side * 0.8 * r, y + 0.3 * r),
        ]
        sketch.polygon(points, sketch.second)


def _long_tail(sketch: Sketch, anchor: Anchor) -> None:
    """Draws a long tail winding up with a round tip."""
    x, y = anchor.tail
    side = 1 if x > 0.5 else -1
    tip = (x + side * 0.2, y - 0.62)
    points = [(x - side * 0.1, y), (x + side * 0.16, y), (x + side * 0.22, y - 0.2), (x + side * 0.06, y - 0.36), tip]
    sketch.line(points, 0.09, sketch.second)
    sketch.circle(*tip, 0.09, accent(sketch.colour))


def _wings(sketch: Sketch, anchor: Anchor) -> None:
    """Draws two feathered wings spread sideways."""
    x, y = anchor.back
    for side in (-1, 1):
        start = x + side * 0.2
        points = [(start, y + 0.08), (start + side * 0.5, y - 0.34), (start + side * 0.52, y - 0.05)]
        points += [(start + side * 0.4, y + 0.02), (start + side * 0.36, y + 0.18), (start + side * 0.18, y + 0.16)]
        sketch.polygon(points, (238, 240, 255))
        sketch.line([points[0], (start + side * 0.4, y + 0.02)], 0.025, (130, 130, 170), inside=True)


def _crown(sketch: Sketch, anchor: Anchor) -> None:
    """Draws a golden crown with three tips."""
    (x, y), r = anchor.head, anchor.radius
    low, high = y - 0.6 * r, y - 1.6 * r
    points = [(x - 0.85 * r, low), (x - 0.95 * r, high), (x - 0.42 * r, low - 0.5 * r), (x, high - 0.1 * r)]
    points += [(x + 0.42 * r, low - 0.5 * r), (x + 0.95 * r, high), (x + 0.85 * r, low)]
    sketch.polygon(points, (252, 205, 50))
    sketch.circle(x, low - 0.22 * r, 0.16 * r, (220, 40, 70))


TRAIT_DRAWERS: dict[str, Callable[[Sketch, Anchor], None]] = {
    "wings": _wings,
    "long tail": _long_tail,
    "big ears": _big_ears,
    "pointed ears": _pointed_ears,
    "horns": _horns,
    "scarf": _scarf,
    "glasses": _glasses,
    "hat": _hat,
    "crown": _crown,
}


def draw_thing(sketch: Sketch, kind: str, traits: tuple[str, ...]) -> None:
    """Draws a kind and its traits in a fixed order."""
    anchor = DRAWERS[kind](sketch)
    for name, draw in TRAIT_DRAWERS.items():
        if name in traits:
            draw(sketch, anchor)
