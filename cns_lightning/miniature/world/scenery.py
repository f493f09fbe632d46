"""The scenes of the picture world, drawn at canvas size from six colours each."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from cns_lightning.miniature.world.drawing import CANVAS
from cns_lightning.miniature.world.vocabulary import RGB, luminance, mix

Palette = tuple[RGB, ...]  # sky top, sky bottom, ground, ground shade, first accent, second accent

PALETTES: dict[str, Palette] = {
    "meadow": ((105, 185, 245), (205, 235, 252), (120, 200, 80), (84, 165, 62), (255, 225, 90), (250, 250, 250)),
    "beach": ((80, 205, 235), (190, 242, 245), (246, 222, 160), (228, 196, 128), (30, 140, 200), (235, 85, 75)),
    "night": ((14, 16, 58), (48, 48, 112), (30, 42, 66), (20, 28, 48), (250, 240, 190), (255, 255, 255)),
    "city": ((196, 178, 200), (240, 212, 205), (112, 112, 120), (84, 86, 96), (142, 122, 150), (250, 225, 130)),
    "snow": ((176, 196, 222), (226, 234, 244), (248, 250, 254), (214, 226, 242), (58, 110, 96), (255, 255, 255)),
    "desert": ((250, 150, 70), (255, 214, 130), (222, 150, 72), (188, 112, 52), (70, 130, 70), (255, 244, 190)),
    "room": ((240, 206, 196), (232, 190, 182), (168, 112, 70), (140, 90, 54), (150, 205, 240), (176, 60, 84)),
    "sea": ((168, 205, 226), (208, 232, 240), (22, 104, 168), (12, 74, 132), (120, 200, 226), (245, 252, 255)),
    "plain": ((246, 243, 238), (236, 232, 226), (228, 223, 216), (216, 210, 203), (246, 243, 238), (246, 243, 238)),
}

_RAMP = Image.linear_gradient("L").resize((1, 256))


def gradient(width: int, height: int, top: RGB, bottom: RGB) -> Image.Image:
    """Returns a picture fading from one colour at the top to another at the bottom."""
    mask = _RAMP.resize((width, max(1, height)))
    return Image.composite(Image.new("RGB", mask.size, bottom), Image.new("RGB", mask.size, top), mask)


def hill(draw: ImageDraw.ImageDraw, base: float, swing: float, waves: float, phase: float, colour: RGB) -> None:
    """Fills the canvas below a wavy line."""
    points = [(x, base + swing * math.sin(phase + waves * 2 * math.pi * x / CANVAS)) for x in range(-4, CANVAS + 8, 4)]
    draw.polygon([(-4, CANVAS), *points, (CANVAS + 4, CANVAS)], fill=colour)


def disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: RGB) -> None:
    """Fills a circle."""
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _sky(canvas: Image.Image, palette: Palette, height: int = CANVAS) -> None:
    """Fills the upper part of the canvas with the sky."""
    canvas.paste(gradient(CANVAS, height, palette[0], palette[1]), (0, 0))


def _cloud(draw: ImageDraw.ImageDraw, x: float, y: float, colour: RGB) -> None:
    """Draws a small cloud of three discs."""
    for shift, lift, radius in ((-9, 1, 6), (0, -2, 8), (9, 1, 6)):
        disc(draw, x + shift, y + lift, radius, colour)


def _meadow(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws green hills with flowers under a sunny sky."""
    _sky(canvas, palette)
    draw = ImageDraw.Draw(canvas)
    disc(draw, random.choice((18, 108)) + random.uniform(-5, 5), 20, 11, palette[4])
    _cloud(draw, random.uniform(40, 90), random.uniform(14, 30), palette[5])
    hill(draw, 66 + random.uniform(-4, 4), 7, 1, random.uniform(0, 6), palette[3])
    hill(draw, 82 + random.uniform(-3, 3), 5, 0.8, random.uniform(0, 6), palette[2])
    for _ in range(12):
        x, y = random.uniform(2, 126), random.uniform(90, 124)
        disc(draw, x, y, 2.2, random.choice((palette[4], palette[5])))


def _beach(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws sand, a strip of sea and a sunshade."""
    _sky(canvas, palette, 56)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 50, CANVAS, 80), fill=palette[4])
    draw.line((0, 60, CANVAS, 60), fill=mix(palette[4], (255, 255, 255), 0.35), width=2)
    hill(draw, 72 + random.uniform(-2, 2), 3, 1.2, 0.5 + random.uniform(0, 6), (250, 252, 250))
    hill(draw, 76 + random.uniform(-2, 2), 3, 1.2, 0.5 + random.uniform(0, 6), palette[2])
    for _ in range(8):
        x, y = random.uniform(0, 120), random.uniform(88, 124)
        draw.line((x, y, x + 9, y), fill=palette[3], width=2)
    x = random.choice((16, 112)) + random.uniform(-6, 6)
    draw.line((x, 36, x, 90), fill=(245, 245, 240), width=3)
    draw.pieslice((x - 24, 22, x + 24, 62), 180, 360, fill=palette[5])
    draw.pieslice((x - 9, 22, x + 9, 62), 180, 360, fill=(250, 250, 245))


def _night(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws dark hills below the moon and the stars."""
    _sky(canvas, palette)
    draw = ImageDraw.Draw(canvas)
    for _ in range(22):
        x, y = random.uniform(2, 126), random.uniform(2, 74)
        disc(draw, x, y, random.choice((1.0, 1.5)), palette[5])
    x = random.choice((24, 102)) + random.uniform(-8, 8)
    disc(draw, x, 24, 13, palette[4])
    disc(draw, x + 6, 21, 11, palette[0])
    hill(draw, 80 + random.uniform(-4, 4), 7, 1, random.uniform(0, 6), palette[2])
    hill(draw, 98 + random.uniform(-3, 3), 5, 0.8, random.uniform(0, 6), palette[3])


def _city(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws houses with lit windows along a road."""
    _sky(canvas, palette)
    draw = ImageDraw.Draw(canvas)
    x = -random.uniform(0, 12)
    while x < CANVAS:
        width, top = random.uniform(20, 32), random.uniform(14, 48)
        colour = mix(palette[4], palette[3], random.uniform(0, 0.6))
        draw.rectangle((x, top, x + width, 92), fill=colour)
        for row in range(int(top) + 6, 84, 12):
            for column in range(int(x) + 5, int(x + width) - 5, 9):
                draw.rectangle((column, row, column + 4, row + 5), fill=palette[5])
        x += width + random.uniform(0, 3)
    draw.rectangle((0, 90, CANVAS, 98), fill=mix(palette[2], (255, 255, 255), 0.45))
    draw.rectangle((0, 97, CANVAS, CANVAS), fill=palette[2])
    for mark in range(-20 + int(random.uniform(0, 20)), CANVAS, 30):
        draw.rectangle((mark, 112, mark + 16, 116), fill=(245, 245, 235))


def _snow(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws firs on white ground with falling flakes."""
    _sky(canvas, palette)
    draw = ImageDraw.Draw(canvas)
    hill(draw, 78 + random.uniform(-3, 3), 5, 1, random.uniform(0, 6), palette[3])
    for place in (12, 44, 84, 116):
        x, foot, height = place + random.uniform(-9, 9), random.uniform(80, 88), random.uniform(34, 52)
        for part in range(3):
            top, half = foot - height + part * height * 0.25, 8 + part * 4
            draw.polygon([(x, top), (x - half, top + height * 0.45), (x + half, top + height * 0.45)], fill=palette[4])
            draw.polygon([(x, top), (x - half / 2.4, top + 8), (x + half / 2.4, top + 8)], fill=palette[5])
    hill(draw, 92 + random.uniform(-3, 3), 4, 0.8, random.uniform(0, 6), palette[2])
    for _ in range(26):
        disc(draw, random.uniform(0, 128), random.uniform(0, 90), 1.6, palette[5])


def _desert(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws dunes and cactuses below a huge sun."""
    _sky(canvas, palette)
    draw = ImageDraw.Draw(canvas)
    disc(draw, random.uniform(36, 92), random.uniform(34, 46), 20, palette[5])
    hill(draw, 74 + random.uniform(-4, 4), 9, 0.9, random.uniform(0, 6), palette[3])
    for place in (14, 114):
        x, foot = place + random.uniform(-7, 7), random.uniform(88, 96)
        draw.rounded_rectangle((x - 4, foot - 46, x + 4, foot), 4, fill=palette[4])
        side = random.choice((-1, 1))
        left, right = sorted((x, x + side * 12))
        draw.rectangle((left, foot - 26, right, foot - 21), fill=palette[4])
        draw.rounded_rectangle((x + side * 12 - 3, foot - 38, x + side * 12 + 3, foot - 21), 3, fill=palette[4])
    hill(draw, 94 + random.uniform(-3, 3), 6, 0.7, random.uniform(0, 6), palette[2])


def _room(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws a papered wall with a window, a wooden floor and a rug."""
    _sky(canvas, palette)
    draw = ImageDraw.Draw(canvas)
    stripe = mix(palette[0], (255, 255, 255), 0.35)
    for x in range(int(random.uniform(-16, 0)), CANVAS, 16):
        draw.rectangle((x, 0, x + 6, 90), fill=stripe)
    x, y = random.choice((12, 78)) + random.uniform(-5, 5), random.uniform(8, 16)
    draw.rectangle((x - 4, y - 4, x + 42, y + 46), fill=(250, 248, 240))
    draw.rectangle((x, y, x + 38, y + 42), fill=palette[4])
    draw.line((x + 19, y, x + 19, y + 42), fill=(250, 248, 240), width=4)
    draw.line((x, y + 21, x + 38, y + 21), fill=(250, 248, 240), width=4)
    draw.rectangle((0, 84, CANVAS, 90), fill=(248, 240, 228))
    draw.rectangle((0, 90, CANVAS, CANVAS), fill=palette[2])
    for y in (99, 109, 119):
        draw.line((0, y, CANVAS, y), fill=palette[3], width=2)
    middle = 64 + random.uniform(-14, 14)
    draw.ellipse((middle - 54, 98, middle + 54, 126), fill=palette[5])
    draw.ellipse((middle - 44, 102, middle + 44, 122), fill=mix(palette[5], (255, 255, 255), 0.35))


def _sea(canvas: Image.Image, palette: Palette, random: Random) -> None:
    """Draws rows of waves below a narrow sky."""
    _sky(canvas, palette, 40)
    draw = ImageDraw.Draw(canvas)
    canvas.paste(gradient(CANVAS, 92, palette[2], palette[3]), (0, 36))
    draw.line((0, 36, CANVAS, 36), fill=palette[4], width=2)
    for row, y in enumerate(range(48, 130, 13)):
        shift = random.uniform(-16, 0)
        radius = 9 + row * 1.2
        for x in range(-10, CANVAS + 20, 26):
            box = (x + shift - radius, y - radius * 0.5, x + shift + radius, y + radius * 0.5)
            draw.arc(box, 20, 160, fill=palette[5] if row % 2 else palette[4], width=3)
    for _ in range(2):
        x, y = random.uniform(10, 118), random.uniform(8, 24)
        draw.line((x - 7, y - 3, x, y, x + 7, y - 3), fill=(70, 80, 95), width=2)


def _plain(canvas: Image.Image, palette: Palette, _: Random) -> None:
    _sky(canvas, palette)


SCENE_DRAWERS: dict[str, Callable[[Image.Image, Palette, Random], None]] = {
    "meadow": _meadow,
    "beach": _beach,
    "night": _night,
    "city": _city,
    "snow": _snow,
    "desert": _desert,
    "room": _room,
    "sea": _sea,
    "plain": _plain,
}


def paint_scene(scene: str, palette: Palette | None, seed: int) -> Image.Image:
    """Paints a scene at canvas size, in its own colours or in those given."""
    canvas = Image.new("RGB", (CANVAS, CANVAS))
    SCENE_DRAWERS[scene](canvas, PALETTES[scene] if palette is None else palette, Random(seed))
    return canvas


def brightness(palette: Palette) -> float:
    """Returns the mean brightness of the sky and ground colours."""
    return sum(luminance(colour) for colour in palette[:4]) / 4
