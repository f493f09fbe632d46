"""The style filters of the base world and the colour changes of the free world."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from cns_lightning.miniature.world.vocabulary import RGB

PIXEL_BLOCKS = 22
PAPER: RGB = (250, 245, 230)
FLAT_STYLES = ("sketch", "pixel", "poster")  # styles whose things are drawn without soft shading


def _photo(canvas: Image.Image, random: Random) -> Image.Image:
    """Leaves the softly shaded picture as it is."""
    return canvas


def _sketch(canvas: Image.Image, random: Random) -> Image.Image:
    """Turns the picture into pencil lines on paper with faint colours."""
    edges = canvas.convert("L").filter(ImageFilter.SMOOTH).filter(ImageFilter.FIND_EDGES)
    lines = edges.point(lambda value: 255 - min(225, max(0, value - 8) * 5))  # type: ignore
    lines = ImageOps.expand(lines.crop((2, 2, canvas.width - 2, canvas.height - 2)), 2, 255)
    strong = ImageEnhance.Color(canvas).enhance(1.4)
    faint = Image.blend(Image.new("RGB", canvas.size, PAPER), strong, 0.44)
    return ImageChops.multiply(faint, Image.merge("RGB", (lines, lines, lines)))


def _pixel(canvas: Image.Image, random: Random) -> Image.Image:
    """Turns the picture into coarse square blocks of few strong colours."""
    strong = ImageEnhance.Color(canvas).enhance(1.3)
    coarse = ImageOps.posterize(strong.resize((PIXEL_BLOCKS, PIXEL_BLOCKS), Image.Resampling.BOX), 4)
    side = -(-canvas.width // PIXEL_BLOCKS)
    large = coarse.resize((PIXEL_BLOCKS * side, PIXEL_BLOCKS * side), Image.Resampling.NEAREST)
    offset = (large.width - canvas.width) // 2
    return large.crop((offset, offset, offset + canvas.width, offset + canvas.height))


def _poster(canvas: Image.Image, random: Random) -> Image.Image:
    """Turns the picture into flat strong colours within a cream frame."""
    inner = canvas.resize((canvas.width - 12, canvas.height - 12), Image.Resampling.BILINEAR)
    flat = ImageEnhance.Color(inner).enhance(1.5).point(lambda value: min(255, round(max(0, value - 20) / 58.75) * 64))  # type: ignore
    return ImageOps.expand(flat, 6, (255, 240, 205))


def _sepia(canvas: Image.Image, random: Random) -> Image.Image:
    """Tones the picture brown."""
    return ImageOps.colorize(canvas.convert("L"), (40, 22, 10), (255, 240, 205), (168, 122, 78))


def _inverted(canvas: Image.Image, random: Random) -> Image.Image:
    """Turns every colour into its opposite."""
    return ImageOps.invert(canvas)


def _shifted(canvas: Image.Image, random: Random) -> Image.Image:
    """Turns all hues by one random angle."""
    hue, saturation, value = canvas.convert("HSV").split()
    turn = random.randrange(30, 226)
    hue = hue.point(lambda level: (level + turn) % 256)  # type: ignore
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _tinted(canvas: Image.Image, random: Random) -> Image.Image:
    """Pulls all colours towards a random one."""
    tint = tuple(random.randrange(256) for _ in range(3))
    return Image.blend(canvas, Image.new("RGB", canvas.size, tint), random.uniform(0.25, 0.5))  # type: ignore[arg-type]


def _vignette(canvas: Image.Image, random: Random) -> Image.Image:
    """Darkens the corners."""
    mask = Image.radial_gradient("L").resize(canvas.size).point(lambda value: max(0, value - 90) * 1.3)  # type: ignore
    dark = canvas.copy()
    dark.paste((10, 5, 15), mask=mask)
    return dark


def _grainy(canvas: Image.Image, random: Random) -> Image.Image:
    """Add grain."""
    generator = np.random.default_rng(random.getrandbits(32))
    half = canvas.reduce(2)
    grain = generator.normal(0, random.uniform(10, 28), (half.height, half.width, 1 if random.random() < 0.5 else 3))
    noisy = np.clip(np.asarray(half, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).resize(canvas.size, Image.Resampling.NEAREST)


def _faded(canvas: Image.Image, random: Random) -> Image.Image:
    """Washes the colours out and moves the contrast."""
    pale = ImageEnhance.Color(canvas).enhance(random.uniform(0.0, 0.5))
    pale = ImageEnhance.Contrast(pale).enhance(random.uniform(0.6, 1.3))
    return ImageEnhance.Brightness(pale).enhance(random.uniform(0.8, 1.25))


STYLE_FILTERS: dict[str, Callable[[Image.Image, Random], Image.Image]] = {
    "photo": _photo,
    "sketch": _sketch,
    "pixel": _pixel,
    "poster": _poster,
    "sepia": _sepia,
    "inverted": _inverted,
    "shifted": _shifted,
    "tinted": _tinted,
    "vignette": _vignette,
    "grainy": _grainy,
    "faded": _faded,
}


def apply_style(canvas: Image.Image, style: str, seed: int) -> Image.Image:
    """Passes a picture through the filter of a style."""
    return STYLE_FILTERS[style](canvas, Random(seed))
