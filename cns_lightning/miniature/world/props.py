"""Things that stand or hang about in a scene of the wide world: what strange places are made of."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from cns_lightning.miniature.world.scenery import disc
from cns_lightning.miniature.world.vocabulary import RGB, mix

PALE: RGB = (250, 246, 236)


def _mushrooms(draw: ImageDraw.ImageDraw, colour: RGB, second: RGB, random: Random) -> None:
    """Draws spotted mushrooms."""
    for place in _places(4, random):
        size, foot = random.uniform(34, 62), random.uniform(92, 106)
        draw.rounded_rectangle((place - size * 0.16, foot - size * 0.75, place + size * 0.16, foot), 4, fill=second)
        draw.pieslice((place - size / 2, foot - size * 1.15, place + size / 2, foot - size / 4), 180, 360, fill=colour)
        for shift, lift in ((-0.27, 0.8), (0.02, 0.98), (0.28, 0.82)):
            disc(draw, place + shift * size, foot - lift * size, size * 0.08, PALE)


def _crystals(draw: ImageDraw.ImageDraw, colour: RGB, second: RGB, random: Random) -> None:
    """Draws bundles of pointed crystals."""
    for index, place in enumerate(_places(5, random)):
        body = (colour, second)[index % 2]
        for lean in (-9, 8, 0):
            x, height = place + lean, random.uniform(24, 56) - abs(lean)
            top = (x + lean, 104 - height)
            draw.polygon([(x - 6, 104), (x - 6 + lean, 112 - height), top, (x, 104)], fill=body)
            right = [(x, 104), top, (x + 6 + lean, 112 - height), (x + 6, 104)]
            draw.polygon(right, fill=mix(body, (20, 15, 40), 0.35))


def _lollipops(draw: ImageDraw.ImageDraw, colour: RGB, second: RGB, random: Random) -> None:
    """Draws round sweets on sticks."""
    for place in _places(4, random):
        radius, middle = random.uniform(10, 17), random.uniform(48, 70)
        draw.line((place, middle, place, 106), fill=PALE, width=4)
        for share, fill in ((1.0, colour), (0.68, second), (0.36, colour)):
            disc(draw, place, middle, radius * share, fill)


def _planets(draw: ImageDraw.ImageDraw, colour: RGB, second: RGB, random: Random) -> None:
    """Draws planets with rings in the sky."""
    for place in _places(2, random):
        radius, middle = random.uniform(11, 19), random.uniform(18, 40)
        disc(draw, place, middle, radius, colour)
        box = (place - radius * 1.8, middle - radius * 0.45, place + radius * 1.8, middle + radius * 0.45)
        draw.ellipse(box, outline=second, width=3)


def _corals(draw: ImageDraw.ImageDraw, colour: RGB, second: RGB, random: Random) -> None:
    """Draws branching corals."""
    for index, place in enumerate(_places(3, random)):
        height, fill = random.uniform(32, 52), (colour, second)[index % 2]
        for lean in (-0.55, -0.2, 0.2, 0.55):
            tip = (place + lean * height, 108 - height * (1 - abs(lean) * 0.5))
            draw.line([(place, 108), (place + lean * 12, 108 - height * 0.4), tip], fill=fill, width=7, joint="curve")
            disc(draw, *tip, 5, fill)


def _bubbles(draw: ImageDraw.ImageDraw, colour: RGB, second: RGB, random: Random) -> None:
    """Draws bubbles everywhere."""
    for _ in range(14):
        x, y, radius = random.uniform(4, 124), random.uniform(4, 100), random.uniform(2.5, 5.5)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=mix(colour, PALE, 0.5), width=2)


def _lights(draw: ImageDraw.ImageDraw, colour: RGB, second: RGB, random: Random) -> None:
    """Draws small lights in the air."""
    for _ in range(16):
        disc(draw, random.uniform(2, 126), random.uniform(4, 84), random.choice((1.4, 2.2)), mix(colour, PALE, 0.3))


def _icicles(draw: ImageDraw.ImageDraw, colour: RGB, second: RGB, random: Random) -> None:
    """Draws points that hang from above."""
    for place in range(-4, 136, 18):
        x, length = place + random.uniform(-4, 4), random.uniform(18, 46)
        draw.polygon([(x - 11, -1), (x + 11, -1), (x, length)], fill=colour)


def _craters(draw: ImageDraw.ImageDraw, colour: RGB, second: RGB, random: Random) -> None:
    """Draws round holes in the ground."""
    for _ in range(7):
        x, y, radius = random.uniform(4, 124), random.uniform(96, 124), random.uniform(6, 13)
        box = (x - radius, y - radius * 0.4, x + radius, y + radius * 0.4)
        draw.ellipse(box, fill=colour)
        draw.arc(box, 0, 180, fill=second, width=2)


def _places(count: int, random: Random) -> list[float]:
    """Returns places from left to right, evenly but for a little play."""
    return [128 * (index + 0.5) / count + random.uniform(-9, 9) for index in range(count)]


PROP_DRAWERS: dict[str, Callable[[ImageDraw.ImageDraw, RGB, RGB, Random], None]] = {
    "mushrooms": _mushrooms,
    "crystals": _crystals,
    "lollipops": _lollipops,
    "planets": _planets,
    "corals": _corals,
    "bubbles": _bubbles,
    "lights": _lights,
    "icicles": _icicles,
    "craters": _craters,
}


def draw_prop(canvas: Image.Image, name: str, colour: RGB, second: RGB, seed: int) -> None:
    """Draws props of one kind on the canvas of a scene."""
    PROP_DRAWERS[name](ImageDraw.Draw(canvas), colour, second, Random(f"{name} {seed}"))
