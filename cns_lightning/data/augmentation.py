"""Custom Diffusion's augmentation: a picture shrunk onto a canvas or cropped in, and which part of it is real.

Source: Custom Diffusion (arXiv 2212.04488), its data pipeline; docs/methods.md 1.8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cns_lightning.determinism import integer, uniform
from cns_lightning.ranges import Count, Positive, Probability, Share

FAR_AWAY = ("a far away ", "very small ")
CLOSE_UP = ("zoomed in ", "close up ")
SMALL = 0.6


@dataclass(frozen=True)
class Augmentation:
    """How pictures are varied.

    Args:
        variants: number of variants of each picture; latents are encoded once for each.
        resize: whether to shrink and crop at all.
        shrink_probability: share of the variants that are shrunk; the others are cropped in.
        least_scale: least scale of a shrunk picture, of the side of the canvas.
        crop_scales: smallest and largest enlargement before a crop.
        flip: probability of a mirror image; 0 for things that carry text.
        prefixes: whether prompts say that a thing is far away or close up.
        style_resize: whether pictures of a style are shrunk and cropped too.
    """

    variants: Count = 16
    resize: bool = True
    shrink_probability: Probability = 2 / 3
    least_scale: Share = 1 / 3
    crop_scales: tuple[Positive, Positive] = (1.2, 1.4)
    flip: Probability = 0.5
    prefixes: bool = True
    style_resize: bool = False


@dataclass(frozen=True)
class Augmented:
    """One variant of a picture.

    Attributes:
        pixels: shape (3, side, side), float32, -1 to 1.
        valid: shape (1, side, side), float32: 1 where the picture is, 0 where the canvas is.
        prefix: words in front of the prompt.
        mask: shape (1, side, side), float32, 0 to 1: how far a pixel is to be learned; None counts all.
    """

    pixels: Tensor
    valid: Tensor
    prefix: str
    mask: Tensor | None = None


def augment(
    image: Image.Image,
    side: int,
    settings: Augmentation,
    seed: int,
    *key: int | str,
    resize: bool | None = None,
    mask: Image.Image | None = None,
) -> Augmented:
    """Makes one variant of a picture, a pure function of picture, settings, seed and key.

    Args:
        image: RGB.
        side: side of the square result, in pixels.
        settings: augmentation settings.
        seed: base random seed.
        key: names of the variant, from which its random numbers follow.
        resize: overrides ``settings.resize``.
        mask: grey, of the picture's size; goes where the picture goes.
    """
    if uniform(seed, "flip", *key) < settings.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mask = None if mask is None else mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if not (settings.resize if resize is None else resize):
        return _place(image, side, side, (0.5, 0.5), "", mask)
    scale, names = _scale(settings, seed, *key)
    prefix = names[integer(len(names), seed, "prefix", *key)] if names and settings.prefixes else ""
    where = (uniform(seed, "across", *key), uniform(seed, "down", *key))
    return _place(image, side, round(scale * side), where, prefix, mask)


def _scale(settings: Augmentation, seed: int, *key: int | str) -> tuple[float, tuple[str, ...]]:
    drawn = uniform(seed, "scale", *key)
    if uniform(seed, "shrink", *key) < settings.shrink_probability:
        scale = settings.least_scale + drawn * (1 - settings.least_scale)
        return scale, FAR_AWAY if scale < SMALL else ()
    low, high = settings.crop_scales
    return low + drawn * (high - low), CLOSE_UP


def _place(
    image: Image.Image, side: int, short: int, where: tuple[float, float], prefix: str, mask: Image.Image | None
) -> Augmented:
    """Brings the short side to a length, then crops or pastes at a place given from 0 to 1 across and down."""
    factor = short / min(image.size)
    size = tuple(max(1, round(length * factor)) for length in image.size)
    resized = image.resize((size[0], size[1]), Image.Resampling.LANCZOS, reducing_gap=3.0)
    free = (side - size[0], side - size[1])
    left, top = (round(part * space) for part, space in zip(where, free, strict=True))
    canvas, region = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    canvas.paste(resized, (left, top))
    region.paste(255, (left, top, left + size[0], top + size[1]))
    pixels = torch.from_numpy(numpy.array(canvas)).permute(2, 0, 1).float() / 127.5 - 1
    valid = (torch.from_numpy(numpy.array(region))[None] > 0).float()
    if mask is None:
        return Augmented(pixels, valid, prefix)
    # Not Lanczos, which overshoots at the edges of a mask.
    shown = Image.new("L", (side, side))
    shown.paste(mask.resize((size[0], size[1]), Image.Resampling.BILINEAR, reducing_gap=3.0), (left, top))
    return Augmented(pixels, valid, prefix, torch.from_numpy(numpy.array(shown))[None].float() / 255)


def latent_valid_region(valid: Tensor, factor: int) -> Tensor:
    """Reduces a valid region to latent cells; a cell counts if all of it and all cells around it are valid.

    The edge of the canvas is not a boundary: dropped are cells beside the blank part, which the autoencoder mixes in.

    Args:
        valid: shape (1, height, width), 0 or 1.
        factor: pixels a cell is wide.

    Returns:
        Shape (1, height / factor, width / factor), float32. Where nothing would be left, the cells that are valid.
    """
    cells = -functional.max_pool2d(-valid[None], factor)
    shrunk = -functional.max_pool2d(-cells, 3, stride=1, padding=1)
    return (shrunk if shrunk.any() else cells)[0]
