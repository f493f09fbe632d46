"""The drawings of the objects, and the table of all kinds."""

from __future__ import annotations

import math
from collections.abc import Callable

from cns_lightning.miniature.world import creatures
from cns_lightning.miniature.world.drawing import DARK, WHITE, Anchor, Sketch, star_points
from cns_lightning.miniature.world.vocabulary import RGB

LEAF: RGB = (50, 140, 60)
GLASS: RGB = (190, 228, 245)
WOOD: RGB = (120, 80, 50)
GLOW: RGB = (255, 236, 140)
METAL: RGB = (150, 150, 160)


def ball(sketch: Sketch) -> Anchor:
    """Draws a ball with two curved seams."""
    sketch.circle(0.5, 0.5, 0.48)
    sketch.arc((-0.42, 0.0, 0.3, 1.0), -62, 62, 0.04, sketch.ink)
    sketch.arc((0.7, 0.0, 1.42, 1.0), 118, 242, 0.04, sketch.ink)
    sketch.line([(0.3, 0.5), (0.7, 0.5)], 0.04, sketch.ink, inside=True)
    return Anchor((0.5, 0.36), 0.3, (0.5, 0.76, 0.36), (0.05, 0.7), (0.5, 0.5))


def box(sketch: Sketch) -> Anchor:
    """Draws a box seen from a corner, its lid lit and taped."""
    sketch.block((0.0, 0.32, 0.72, 1.0))
    sketch.polygon([(0.0, 0.32), (0.24, 0.08), (1.0, 0.08), (0.72, 0.32)], sketch.light)
    sketch.polygon([(0.72, 0.32), (1.0, 0.08), (1.0, 0.76), (0.72, 1.0)], sketch.shade)
    sketch.polygon([(0.3, 0.32), (0.54, 0.08), (0.66, 0.08), (0.42, 0.32)], sketch.ink)
    sketch.block((0.3, 0.32, 0.42, 0.5), sketch.ink)
    for points in ([(0.0, 0.32), (0.72, 0.32)], [(0.72, 0.32), (1.0, 0.08)], [(0.72, 0.32), (0.72, 1.0)]):
        sketch.line(points, 0.028, sketch.ink, inside=True)
    return Anchor((0.4, 0.5), 0.3, (0.36, 0.8, 0.34), (0.02, 0.8), (0.5, 0.5))


def cup(sketch: Sketch) -> Anchor:
    """Draws a mug with a large handle and a dark drink."""
    sketch.line([(0.7, 0.4), (0.92, 0.4), (0.99, 0.53), (0.93, 0.7), (0.66, 0.78)], 0.11, sketch.shade)
    sketch.polygon([(0.04, 0.24), (0.76, 0.24), (0.67, 0.95), (0.13, 0.95)])
    sketch.ellipse((0.13, 0.86, 0.67, 1.0))
    sketch.ellipse((0.04, 0.12, 0.76, 0.36), sketch.light)
    sketch.ellipse((0.1, 0.16, 0.7, 0.33), (92, 52, 34))
    sketch.arc((0.04, 0.12, 0.76, 0.36), 0, 180, 0.025, sketch.ink)
    return Anchor((0.4, 0.46), 0.28, (0.4, 0.78, 0.27), (0.08, 0.8), (0.4, 0.6))


def car(sketch: Sketch) -> Anchor:
    """Draws a car from the side with two windows and two wheels."""
    sketch.polygon([(0.18, 0.5), (0.3, 0.24), (0.68, 0.24), (0.84, 0.5)])
    sketch.block((-0.02, 0.46, 1.02, 0.78), radius=0.1)
    sketch.polygon([(0.26, 0.48), (0.35, 0.3), (0.48, 0.3), (0.48, 0.48)], GLASS)
    sketch.polygon([(0.54, 0.48), (0.54, 0.3), (0.65, 0.3), (0.75, 0.48)], GLASS)
    sketch.line([(0.51, 0.5), (0.51, 0.74)], 0.02, sketch.ink, inside=True)
    sketch.circle(0.97, 0.57, 0.055, GLOW)
    sketch.block((-0.03, 0.54, 0.04, 0.62), (230, 50, 50))
    for x in (0.24, 0.77):
        sketch.circle(x, 0.79, 0.155, DARK)
        sketch.circle(x, 0.79, 0.075, (200, 200, 205))
    return Anchor((0.5, 0.4), 0.2, (0.5, 0.64, 0.3), (0.0, 0.6), (0.35, 0.5))


def tower(sketch: Sketch) -> Anchor:
    """Draws a castle tower with battlements, a window and a gate."""
    sketch.polygon([(0.28, 0.24), (0.72, 0.24), (0.8, 1.0), (0.2, 1.0)])
    sketch.block((0.17, 0.1, 0.83, 0.3))
    for x in (0.17, 0.42, 0.67):
        sketch.block((x, -0.02, x + 0.16, 0.2))
    sketch.line([(0.17, 0.3), (0.83, 0.3)], 0.03, sketch.ink, inside=True)
    sketch.block((0.41, 0.4, 0.59, 0.6), (70, 55, 80), 0.08)
    sketch.block((0.38, 0.74, 0.62, 1.0), WOOD, 0.09)
    return Anchor((0.5, 0.3), 0.24, (0.5, 0.67, 0.25), (0.25, 0.9), (0.5, 0.5))


def flower(sketch: Sketch) -> Anchor:
    """Draws a large flower with six petals on a leafy stem."""
    sketch.line([(0.5, 0.5), (0.5, 0.98)], 0.08, LEAF)
    sketch.polygon([(0.5, 0.94), (0.2, 0.86), (0.1, 0.7), (0.36, 0.74)], LEAF)
    sketch.polygon([(0.5, 0.9), (0.8, 0.8), (0.9, 0.64), (0.64, 0.7)], LEAF)
    for i in range(6):
        angle = math.pi * i / 3
        sketch.circle(0.5 + 0.25 * math.sin(angle), 0.32 - 0.25 * math.cos(angle), 0.16)
    sketch.circle(0.5, 0.32, 0.24)
    sketch.circle(0.5, 0.32, 0.135, (250, 205, 60))
    sketch.arc((0.365, 0.185, 0.635, 0.455), 0, 360, 0.025, sketch.ink)
    return Anchor((0.5, 0.3), 0.26, (0.5, 0.64, 0.12), (0.45, 0.9), (0.5, 0.36))


def star(sketch: Sketch) -> Anchor:
    """Draws a fat star with a smile."""
    sketch.polygon(star_points(0.5, 0.54, 0.57, 0.27))
    for side in (-1, 1):
        sketch.circle(0.5 + side * 0.1, 0.48, 0.045, sketch.ink)
    sketch.arc((0.4, 0.48, 0.6, 0.66), 20, 160, 0.035, sketch.ink)
    return Anchor((0.5, 0.46), 0.24, (0.5, 0.74, 0.2), (0.25, 0.85), (0.5, 0.5))


def lamp(sketch: Sketch) -> Anchor:
    """Draws a table lamp with a wide shade on a thin stand."""
    sketch.block((0.455, 0.5, 0.545, 0.95), METAL)
    sketch.ellipse((0.24, 0.87, 0.76, 1.01), METAL)
    sketch.ellipse((0.4, 0.46, 0.6, 0.66), GLOW)
    sketch.polygon([(0.3, 0.02), (0.7, 0.02), (0.96, 0.54), (0.04, 0.54)])
    sketch.line([(0.06, 0.52), (0.94, 0.52)], 0.04, sketch.light, inside=True)
    sketch.line([(0.82, 0.54), (0.82, 0.7)], 0.02, METAL)
    sketch.circle(0.82, 0.72, 0.035, WHITE)
    return Anchor((0.5, 0.28), 0.26, (0.5, 0.52, 0.36), (0.3, 0.92), (0.5, 0.3))


def boat(sketch: Sketch) -> Anchor:
    """Draws a sailing boat with a mast and two sails."""
    sketch.line([(0.5, 0.0), (0.5, 0.7)], 0.05, WOOD)
    sketch.polygon([(0.54, 0.02), (0.96, 0.6), (0.54, 0.6)], sketch.light)
    sketch.polygon([(0.46, 0.14), (0.46, 0.6), (0.12, 0.6)], WHITE)
    sketch.polygon([(-0.06, 0.66), (1.06, 0.66), (0.86, 1.0), (0.16, 1.0)])
    sketch.line([(-0.02, 0.7), (1.02, 0.7)], 0.045, sketch.ink, inside=True)
    return Anchor((0.5, 0.26), 0.22, (0.5, 0.83, 0.38), (0.02, 0.75), (0.5, 0.5))


DRAWERS: dict[str, Callable[[Sketch], Anchor]] = {
    "cat": creatures.cat,
    "dog": creatures.dog,
    "bird": creatures.bird,
    "fish": creatures.fish,
    "rabbit": creatures.rabbit,
    "ball": ball,
    "box": box,
    "cup": cup,
    "car": car,
    "tower": tower,
    "flower": flower,
    "star": star,
    "lamp": lamp,
    "boat": boat,
}
