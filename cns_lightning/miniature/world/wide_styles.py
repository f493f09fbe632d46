"""The styles of the wide world, each in two inks that captions name: what strange styles are made of."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from cns_lightning.miniature.world.vocabulary import RGB, mix

Inks = tuple[RGB, RGB]  # a dark and a light colour


def _duotone(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Prints the picture from a dark ink to a light one."""
    tone = ImageOps.autocontrast(canvas.convert("L"), cutoff=1)
    return Image.blend(ImageOps.colorize(tone, inks[0], inks[1]), canvas, random.choice((0.0, 0.0, 0.25)))


def _outlined(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Draws light outlines on a dark wall."""
    edges = canvas.filter(ImageFilter.SMOOTH).filter(ImageFilter.FIND_EDGES).convert("L")
    edges = ImageOps.expand(edges.crop((2, 2, canvas.width - 2, canvas.height - 2)), 2, 0)
    lines = edges.point(lambda value: min(255, max(0, value - 25) * 5)).filter(ImageFilter.MaxFilter(3))  # type: ignore
    wall = Image.blend(Image.new("RGB", canvas.size, inks[0]), canvas, random.choice((0.0, 0.2)))
    return Image.composite(Image.new("RGB", canvas.size, inks[1]), wall, lines)


def _tiled(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Lays the picture in square tiles with dark joints."""
    step = random.choice((12, 16, 20))
    cells = -(-canvas.width // step)
    tiles = canvas.resize((cells, cells), Image.Resampling.BOX).resize(
        (cells * step, cells * step), Image.Resampling.NEAREST
    )
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width] % step
    joints = Image.fromarray((((rows < 2) | (columns < 2)) * 255).astype(np.uint8))
    soft = Image.blend(tiles.crop((0, 0, *canvas.size)), canvas, 0.4)
    return Image.composite(Image.new("RGB", canvas.size, inks[0]), soft, joints)


def _hatched(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Draws the picture in slanted strokes on light paper."""
    step, side = random.choice((8, 11, 14)), random.choice((-1, 1))
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width]
    strokes = Image.fromarray((((rows + side * columns) % step < step * 0.62) * 255).astype(np.uint8))
    return Image.composite(canvas, Image.new("RGB", canvas.size, inks[1]), strokes.filter(ImageFilter.BoxBlur(1)))


def _checkered(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Lays a chessboard of both inks over the picture."""
    step = random.choice((10, 16, 22))
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width] // step
    board = Image.fromarray((((rows + columns) % 2) * 255).astype(np.uint8))
    veil = Image.composite(Image.new("RGB", canvas.size, inks[0]), Image.new("RGB", canvas.size, inks[1]), board)
    return Image.blend(canvas, veil, 0.4)


def _glowing(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Lets bright things shine in the dark."""
    dark = Image.blend(canvas, Image.new("RGB", canvas.size, mix(inks[0], (0, 0, 0), 0.4)), 0.65)
    halo = canvas.filter(ImageFilter.GaussianBlur(8))
    bright = halo.convert("L").point(lambda value: min(200, max(0, value - 110) * 2))  # type: ignore
    return Image.composite(Image.blend(halo, Image.new("RGB", canvas.size, inks[1]), 0.4), dark, bright)


WIDE_STYLE_FILTERS: dict[str, Callable[[Image.Image, Inks, Random], Image.Image]] = {
    "duotone": _duotone,
    "outlined": _outlined,
    "tiled": _tiled,
    "hatched": _hatched,
    "checkered": _checkered,
    "glowing": _glowing,
}


def apply_wide_style(canvas: Image.Image, style: str, inks: Inks, seed: int) -> Image.Image:
    """Passes a picture through a style of the wide world in its two inks."""
    return WIDE_STYLE_FILTERS[style](canvas, inks, Random(f"{style} {seed}"))
