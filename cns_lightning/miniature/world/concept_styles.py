"""Styles that only personal concepts show, never the base or the free world."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

from cns_lightning.miniature.world.vocabulary import RGB, mix

Inks = tuple[RGB, RGB]  # a dark and a light colour of the style


def _mosaic(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Break the picture into panes of coloured glass within dark lead."""
    step = 22
    side = canvas.width
    cells = -(-side // step) + 1
    generator = np.random.default_rng(random.getrandbits(32))
    grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(-1, 2)
    points = (grid + generator.uniform(-0.42, 0.42, grid.shape)) * step
    rows, columns = np.mgrid[0:side, 0:side]
    squares = (columns[..., None] - points[:, 0]) ** 2 + (rows[..., None] - points[:, 1]) ** 2
    owner = squares.argmin(-1)
    counts = np.maximum(np.bincount(owner.ravel(), minlength=len(points)), 1)
    pixels = np.asarray(ImageEnhance.Color(canvas).enhance(1.6), dtype=np.float64)
    means = [np.bincount(owner.ravel(), pixels[..., c].ravel(), len(points)) / counts for c in range(3)]
    tint = generator.uniform(0.85, 1.15, len(points))
    glass = np.stack([np.clip(mean * tint, 0, 255)[owner] for mean in means], -1)
    lead = np.zeros(owner.shape, dtype=bool)
    lead[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    lead[1:] |= owner[1:] != owner[:-1]
    strips = Image.fromarray((lead * 255).astype(np.uint8)).filter(ImageFilter.MaxFilter(3))
    glass = glass * 0.55 + pixels * 0.45
    return Image.composite(
        Image.new("RGB", canvas.size, mix(inks[0], (0, 0, 0), 0.2)),
        Image.fromarray(glass.astype(np.uint8)),
        strips.filter(ImageFilter.GaussianBlur(1.2)),
    )


def _halftone(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Prints the picture in dots of one ink on coloured paper."""
    step = 14
    tone = ImageOps.autocontrast(canvas.convert("L"), cutoff=2)
    darkness = 1 - np.asarray(tone.filter(ImageFilter.BoxBlur(2)), dtype=np.float64) / 255
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width]
    shifted = columns + (rows // step % 2) * (step // 2)
    distances = np.hypot(rows % step - step / 2 + 0.5, shifted % step - step / 2 + 0.5)
    dots = distances < darkness * step * 0.72
    edges = np.asarray(tone.filter(ImageFilter.FIND_EDGES)) > 110
    edges[:2], edges[-2:], edges[:, :2], edges[:, -2:] = False, False, False, False
    return Image.fromarray(np.where((dots | edges)[..., None], inks[0], inks[1]).astype(np.uint8))


def _neon(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Draws the outlines as glowing tubes before a dark wall."""
    edges = canvas.filter(ImageFilter.SMOOTH).filter(ImageFilter.FIND_EDGES).convert("L")
    edges = ImageOps.expand(edges.crop((2, 2, canvas.width - 2, canvas.height - 2)), 2, 0)
    tubes = edges.point(lambda value: min(255, max(0, value - 30) * 4))  # type: ignore
    tubes = tubes.filter(ImageFilter.MaxFilter(3)).filter(ImageFilter.GaussianBlur(1))
    hue, saturation, _ = canvas.filter(ImageFilter.MaxFilter(5)).convert("HSV").split()
    full = Image.merge(
        "HSV",
        (hue, saturation.point(lambda value: min(255, value * 2 + 60)), Image.new("L", hue.size, 255)),  # type: ignore
    )
    glow = Image.composite(full.convert("RGB"), Image.new("RGB", canvas.size), tubes)
    wall = Image.new("RGB", canvas.size, mix(inks[0], (0, 0, 0), 0.55))
    halo = ImageEnhance.Brightness(glow.filter(ImageFilter.GaussianBlur(5))).enhance(1.5)
    return ImageChops.add(ImageChops.add(wall, halo), glow)


def _stitched(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Embroiders the picture in crosses on cloth."""
    step = 16
    threads = ImageEnhance.Color(canvas.filter(ImageFilter.GaussianBlur(1.5))).enhance(1.5)
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width] % step
    cross = (abs(rows - columns) <= 3) | (abs(rows + columns - step + 1) <= 3)
    cover = Image.fromarray(np.where(cross, 255, 90).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.5))
    return Image.composite(threads, Image.new("RGB", canvas.size, inks[1]), cover)


def _woven(canvas: Image.Image, inks: Inks, random: Random) -> Image.Image:
    """Weaves the picture from ribbons running over and under each other."""
    step = 21
    pixels = np.asarray(ImageEnhance.Color(canvas).enhance(1.3), dtype=np.float64)
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width]
    level = (rows // step + columns // step) % 2 == 0
    along = np.where(level, columns, rows) % step
    across = np.where(level, rows, columns) % step
    bulge = np.sin(np.pi * (along + 0.5) / step)
    woven = pixels * 0.68 + np.where(level[..., None], inks[1], inks[0]) * 0.32
    woven *= (0.65 + 0.45 * bulge)[..., None]
    woven[(across <= 1) | (across >= step - 2)] *= 0.65
    return Image.fromarray(np.clip(woven, 0, 255).astype(np.uint8))


CONCEPT_STYLE_FILTERS: dict[str, Callable[[Image.Image, Inks, Random], Image.Image]] = {
    "mosaic": _mosaic,
    "halftone": _halftone,
    "neon": _neon,
    "stitched": _stitched,
    "woven": _woven,
}


def apply_concept_style(canvas: Image.Image, style: str, inks: Inks, seed: int) -> Image.Image:
    """Passes a picture through a concept style with its two inks."""
    return CONCEPT_STYLE_FILTERS[style](canvas, inks, Random(seed))
