"""The drawings of the animals."""

from __future__ import annotations

from cns_lightning.miniature.world.drawing import DARK, Anchor, Sketch
from cns_lightning.miniature.world.vocabulary import RGB

PINK: RGB = (245, 150, 160)
BEAK: RGB = (250, 165, 40)


def cat(sketch: Sketch) -> Anchor:
    """Draws a cat sitting and facing us, its tail curled up at the side."""
    sketch.line([(0.68, 0.92), (0.88, 0.9), (0.96, 0.76), (0.9, 0.6), (0.82, 0.56)], 0.1)
    sketch.ellipse((0.24, 0.42, 0.76, 1.04))
    sketch.block((0.2, 0.9, 0.8, 1.0), radius=0.05)
    for side in (-1, 1):
        middle = 0.5 + side * 0.2
        sketch.polygon([(middle - side * 0.13, 0.16), (middle + side * 0.12, -0.06), (middle + side * 0.12, 0.3)])
        sketch.polygon([(middle - side * 0.03, 0.15), (middle + side * 0.08, 0.03), (middle + side * 0.08, 0.22)], PINK)
    sketch.ellipse((0.18, 0.09, 0.82, 0.58))
    sketch.arc((0.18, 0.09, 0.82, 0.58), 25, 155, 0.025, sketch.ink)
    sketch.line([(0.5, 0.74), (0.5, 1.0)], 0.025, sketch.ink, inside=True)
    for side in (-1, 1):
        sketch.eye(0.5 + side * 0.15, 0.31, 0.085)
        for rise in (-0.03, 0.04):
            sketch.line(
                [(0.5 + side * 0.14, 0.43 + rise * 0.3), (0.5 + side * 0.3, 0.42 + rise)], 0.014, sketch.ink, True
            )
    sketch.polygon([(0.45, 0.41), (0.55, 0.41), (0.5, 0.47)], PINK)
    return Anchor((0.5, 0.32), 0.28, (0.5, 0.58, 0.25), (0.8, 0.85), (0.5, 0.65))


def dog(sketch: Sketch) -> Anchor:
    """Draws a dog standing sideways with a long snout and a hanging ear."""
    sketch.line([(0.1, 0.55), (0.02, 0.4), (0.04, 0.28)], 0.08)
    sketch.block((0.06, 0.46, 0.74, 0.78), radius=0.15)
    for x in (0.08, 0.24, 0.5, 0.64):
        sketch.block((x, 0.66, x + 0.11, 1.0), radius=0.04)
    sketch.polygon([(0.5, 0.5), (0.56, 0.2), (0.8, 0.3), (0.74, 0.65)])
    sketch.block((0.48, 0.08, 0.84, 0.44), radius=0.15)
    sketch.block((0.66, 0.24, 1.02, 0.44), radius=0.09)
    sketch.block((0.94, 0.22, 1.04, 0.32), DARK, 0.05)
    sketch.line([(0.82, 0.4), (0.98, 0.39)], 0.02, sketch.ink, inside=True)
    sketch.block((0.42, 0.1, 0.58, 0.46), sketch.shade, 0.08)
    sketch.eye(0.73, 0.2, 0.07, 0.2)
    sketch.block((0.53, 0.46, 0.78, 0.53), (215, 60, 60), 0.03)
    sketch.line([(0.355, 0.78), (0.49, 0.78)], 0.02, sketch.ink, inside=True)
    return Anchor((0.65, 0.22), 0.22, (0.65, 0.5, 0.17), (0.05, 0.45), (0.35, 0.5))


def bird(sketch: Sketch) -> Anchor:
    """Draws a plump bird looking sideways with a raised tail."""
    for x in (0.46, 0.6):
        sketch.line([(x, 0.82), (x, 0.97), (x + 0.08, 0.97)], 0.04, BEAK)
    sketch.polygon([(0.3, 0.5), (-0.02, 0.26), (-0.04, 0.42), (0.02, 0.56), (0.24, 0.72)])
    sketch.ellipse((0.18, 0.34, 0.78, 0.88))
    sketch.circle(0.68, 0.3, 0.215)
    sketch.polygon([(0.84, 0.22), (1.06, 0.32), (0.84, 0.42)], BEAK)
    sketch.polygon([(0.24, 0.52), (0.58, 0.5), (0.5, 0.68), (0.3, 0.72), (0.08, 0.66)], sketch.shade)
    sketch.eye(0.74, 0.25, 0.075, 0.2)
    return Anchor((0.68, 0.28), 0.21, (0.62, 0.48, 0.2), (0.02, 0.42), (0.35, 0.45))


def fish(sketch: Sketch) -> Anchor:
    """Draws a fish swimming to the right with a forked tail."""
    sketch.polygon([(0.26, 0.5), (-0.04, 0.2), (0.06, 0.5), (-0.04, 0.8)], sketch.shade)
    sketch.polygon([(0.4, 0.3), (0.5, 0.08), (0.74, 0.16), (0.76, 0.34)], sketch.shade)
    sketch.polygon([(0.5, 0.74), (0.46, 0.92), (0.64, 0.84), (0.68, 0.7)], sketch.shade)
    sketch.ellipse((0.16, 0.22, 1.02, 0.8))
    sketch.arc((0.46, 0.22, 0.76, 0.8), -70, 70, 0.028, sketch.ink)
    sketch.polygon([(0.44, 0.52), (0.6, 0.5), (0.5, 0.66)], sketch.shade)
    sketch.eye(0.85, 0.43, 0.075, 0.15)
    sketch.arc((0.86, 0.5, 1.02, 0.64), 60, 190, 0.022, sketch.ink)
    return Anchor((0.78, 0.42), 0.2, (0.62, 0.74, 0.14), (0.02, 0.5), (0.5, 0.4))


def rabbit(sketch: Sketch) -> Anchor:
    """Draws a rabbit facing us with two tall ears and big feet."""
    for side in (-1, 1):
        x = 0.5 + side * 0.12
        sketch.polygon(
            [(x - 0.075, 0.3), (x - 0.085 + side * 0.05, 0.02), (x + 0.085 + side * 0.05, 0.02), (x + 0.075, 0.3)]
        )
        sketch.circle(x + side * 0.05, 0.0, 0.088)
        sketch.line([(x + side * 0.045, 0.02), (x, 0.24)], 0.06, PINK)
    sketch.ellipse((0.24, 0.54, 0.76, 1.0))
    for side in (-1, 1):
        x = 0.5 + side * 0.2
        sketch.ellipse((x - 0.15, 0.88, x + 0.15, 1.01))
    sketch.ellipse((0.37, 0.68, 0.63, 0.96), sketch.light)
    sketch.circle(0.82, 0.8, 0.1, sketch.light)
    sketch.ellipse((0.24, 0.24, 0.76, 0.64))
    sketch.arc((0.24, 0.24, 0.76, 0.64), 25, 155, 0.025, sketch.ink)
    for side in (-1, 1):
        sketch.eye(0.5 + side * 0.13, 0.4, 0.065)
    sketch.polygon([(0.46, 0.48), (0.54, 0.48), (0.5, 0.53)], PINK)
    sketch.block((0.465, 0.545, 0.535, 0.62), (255, 255, 255))
    sketch.line([(0.5, 0.54), (0.5, 0.62)], 0.014, DARK, inside=True)
    return Anchor((0.5, 0.42), 0.24, (0.5, 0.64, 0.22), (0.84, 0.84), (0.5, 0.72))
