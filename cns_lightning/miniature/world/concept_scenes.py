"""Scenes that only personal concepts show, never the base or the free world."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from cns_lightning.miniature.world.drawing import CANVAS, star_points
from cns_lightning.miniature.world.scenery import Palette, disc, gradient, hill
from cns_lightning.miniature.world.vocabulary import RGB, mix

CONCEPT_PALETTES: dict[str, Palette] = {
    "mushroom_forest": (
        (52, 28, 84), (120, 70, 140), (44, 92, 78), (28, 62, 60), (225, 62, 78), (250, 232, 215),
    ),
    "candy_land": ((255, 190, 225), (255, 232, 245), (150, 232, 205), (250, 250, 250), (240, 60, 110), (255, 214, 90)),
    "ringed_moon": ((10, 8, 22), (34, 26, 52), (168, 164, 158), (118, 114, 116), (232, 160, 92), (190, 220, 250)),
    "coral_reef": ((40, 190, 190), (8, 92, 120), (232, 214, 160), (20, 120, 120), (250, 105, 110), (205, 95, 205)),
    "crystal_cave": ((30, 18, 26), (70, 34, 50), (84, 50, 58), (52, 28, 38), (90, 240, 220), (245, 120, 230)),
}  # fmt: skip


def turned(colour: RGB, turn: float) -> RGB:
    """Turns the hue of a colour by a fraction of the circle."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    red, green, blue = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _mushroom(draw: ImageDraw.ImageDraw, x: float, foot: float, size: float, cap: RGB, stem: RGB) -> None:
    """Draws a mushroom with a spotted cap."""
    draw.rounded_rectangle((x - size * 0.16, foot - size * 0.75, x + size * 0.16, foot), size * 0.1, fill=stem)
    draw.pieslice((x - size * 0.5, foot - size * 1.15, x + size * 0.5, foot - size * 0.25), 180, 360, fill=cap)
    for shift, lift in ((-0.27, 0.8), (0.02, 0.98), (0.28, 0.82)):
        disc(draw, x + shift * size, foot - lift * size, size * 0.08, (255, 250, 240))


def _mushroom_forest(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws giant mushrooms in a dim wood with fireflies."""
    canvas.paste(gradient(CANVAS, CANVAS, palette[0], palette[1]), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for place in (8, 40, 76, 110):
        x = place + random.uniform(-8, 8)
        _mushroom(
            draw, x, 92, random.uniform(40, 56), mix(palette[4], palette[0], 0.45), mix(palette[5], palette[0], 0.5)
        )
    hill(draw, 88 + random.uniform(-3, 3), 4, 1, random.uniform(0, 6), palette[2])
    for place in (14, 112):
        _mushroom(
            draw, place + random.uniform(-8, 8), random.uniform(98, 106), random.uniform(48, 70), palette[4], palette[5]
        )
    hill(draw, 106 + random.uniform(-2, 2), 3, 1.3, random.uniform(0, 6), palette[3])
    for _ in range(12):
        disc(draw, random.uniform(2, 126), random.uniform(4, 84), 1.8, (255, 245, 140))


def _candy_land(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws lollipops and striped canes on icing."""
    canvas.paste(gradient(CANVAS, CANVAS, palette[0], palette[1]), (0, 0))
    draw = ImageDraw.Draw(canvas)
    hill(draw, 84, 9, 1.2, random.uniform(0, 6), palette[5])
    for place in (18, 64, 108):
        x, y, radius = place + random.uniform(-9, 9), random.uniform(28, 46), random.uniform(15, 19)
        draw.line((x, y, x, 100), fill=(255, 255, 255), width=4)
        for ring in range(4):
            colour = palette[4] if ring % 2 == 0 else (255, 250, 250)
            disc(draw, x, y, radius * (1 - ring * 0.26), colour)
    for place in (42, 88):
        x = place + random.uniform(-6, 6)
        for step in range(9):
            colour = palette[4] if step % 2 else (255, 255, 255)
            draw.rectangle((x - 4, 60 + step * 5, x + 4, 65 + step * 5), fill=colour)
        draw.arc((x - 4, 46, x + 18, 72), 180, 360, fill=palette[4], width=8)
    hill(draw, 96 + random.uniform(-2, 2), 4, 2.5, random.uniform(0, 6), palette[3])
    hill(draw, 104 + random.uniform(-2, 2), 4, 2.5, random.uniform(0, 6), palette[2])
    for _ in range(16):
        x, y = random.uniform(2, 124), random.uniform(110, 125)
        draw.line((x, y, x + 4, y + 2), fill=random.choice((palette[4], palette[5], (120, 110, 230))), width=2)


def _ringed_moon(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws grey ground with craters below a huge ringed planet."""
    canvas.paste(gradient(CANVAS, CANVAS, palette[0], palette[1]), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for _ in range(20):
        x, y = random.uniform(2, 126), random.uniform(2, 80)
        draw.polygon(star_points(x, y, 3, 1, 4), fill=(255, 255, 255))
    x, y = random.uniform(44, 84), random.uniform(34, 44)
    ring = (x - 46, y - 12, x + 46, y + 12)
    draw.arc(ring, 180, 360, fill=palette[5], width=4)
    disc(draw, x, y, 25, palette[4])
    for lift in (-12, 2, 14):
        half = math.sqrt(25**2 - lift**2)
        draw.line((x - half, y + lift, x + half, y + lift), fill=mix(palette[4], palette[0], 0.3), width=4)
    draw.arc(ring, -12, 192, fill=palette[5], width=4)
    hill(draw, 86 + random.uniform(-3, 3), 5, 0.8, random.uniform(0, 6), palette[2])
    for _ in range(7):
        x, y, radius = random.uniform(4, 124), random.uniform(96, 124), random.uniform(6, 13)
        draw.ellipse((x - radius, y - radius * 0.4, x + radius, y + radius * 0.4), fill=palette[3])
        draw.arc((x - radius, y - radius * 0.4, x + radius, y + radius * 0.4), 0, 180, fill=(215, 212, 205), width=2)


def _coral_reef(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws corals, weeds and bubbles on a sandy sea floor."""
    canvas.paste(gradient(CANVAS, CANVAS, palette[0], palette[1]), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for place in (20, 60, 100):
        x = place + random.uniform(-12, 12)
        draw.polygon([(x, 0), (x + 12, 0), (x - 14, 90), (x - 36, 90)], fill=mix(palette[0], palette[1], 0.25))
    for place in (34, 92):
        x = place + random.uniform(-10, 10)
        points = [(x + 6 * math.sin(y / 9), y) for y in range(40, 110, 4)]
        draw.line(points, fill=palette[3], width=7, joint="curve")
    for place, colour in ((12, palette[4]), (66, palette[5]), (116, palette[4])):
        x, height = place + random.uniform(-8, 8), random.uniform(34, 50)
        for lean in (-0.55, -0.2, 0.2, 0.55):
            tip = (x + lean * height, 108 - height * (1 - abs(lean) * 0.5))
            draw.line([(x, 108), (x + lean * 12, 108 - height * 0.4), tip], fill=colour, width=7, joint="curve")
            disc(draw, *tip, 5, colour)
    hill(draw, 104 + random.uniform(-2, 2), 4, 1.2, random.uniform(0, 6), palette[2])
    for _ in range(12):
        x, y, radius = random.uniform(4, 124), random.uniform(4, 96), random.uniform(2.5, 4.5)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(225, 250, 250), width=2)


def _crystal_cave(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws a cave with hanging rock and glowing crystals."""
    canvas.paste(gradient(CANVAS, CANVAS, palette[0], palette[1]), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for place in range(-4, 136, 18):
        x, length = place + random.uniform(-4, 4), random.uniform(18, 46)
        draw.polygon([(x - 11, -1), (x + 11, -1), (x, length)], fill=palette[3])
    for index, place in enumerate((10, 34, 62, 94, 118)):
        colour = palette[4 + index % 2]
        for lean in (-9, 8, 0):
            x, height = place + random.uniform(-5, 5) + lean, random.uniform(26, 58) - abs(lean)
            top = (x + lean, 104 - height)
            draw.polygon([(x - 6, 104), (x - 6 + lean, 112 - height), top, (x, 104)], fill=colour)
            draw.polygon(
                [(x, 104), top, (x + 6 + lean, 112 - height), (x + 6, 104)], fill=mix(colour, palette[0], 0.35)
            )
    hill(draw, 100 + random.uniform(-2, 2), 4, 1.4, random.uniform(0, 6), palette[2])


CONCEPT_SCENE_DRAWERS: dict[str, Callable[[Image.Image, Palette, Random], None]] = {
    "mushroom_forest": _mushroom_forest,
    "candy_land": _candy_land,
    "ringed_moon": _ringed_moon,
    "coral_reef": _coral_reef,
    "crystal_cave": _crystal_cave,
}


def paint_concept_scene(scene: str, turn: float, seed: int) -> Image.Image:
    """Paints one view of a concept scene, its colours turned by `turn`."""
    canvas = Image.new("RGB", (CANVAS, CANVAS))
    palette = tuple(turned(colour, turn) for colour in CONCEPT_PALETTES[scene])
    CONCEPT_SCENE_DRAWERS[scene](canvas, palette, Random(seed))
    return canvas
