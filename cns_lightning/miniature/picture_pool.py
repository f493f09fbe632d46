"""Pools of rendered pictures on disk, made once and read by every training stage of the miniature."""

from __future__ import annotations

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy

from cns_lightning.miniature import world
from cns_lightning.miniature.architecture import PICTURE_SIZE
from cns_lightning.storage import write_atomically, write_json

SHARD = 1000


@dataclass(frozen=True)
class PicturePool:
    """Pictures and what they show.

    Attributes:
        pixels: shape (pictures, 64, 64, 3), uint8.
        captions: one a picture.
    """

    pixels: numpy.ndarray
    captions: list[str]


def _render_shard(folder: Path, free: bool, seed: int, shard: int) -> None:
    path = folder / f"{shard:04d}.rgb"
    if path.exists():
        return
    numbers = random.Random(f"{seed}/{'free' if free else 'base'}/{shard}")
    sample = world.sample_free_picture if free else world.sample_picture
    pixels = numpy.empty((SHARD, PICTURE_SIZE, PICTURE_SIZE, 3), numpy.uint8)
    captions = []
    for index in range(SHARD):
        picture, caption = sample(numbers)
        pixels[index] = numpy.asarray(world.render(picture, PICTURE_SIZE))
        captions.append(caption)
    write_json(folder / f"{shard:04d}.json", captions)
    write_atomically(path, pixels.tobytes())


def render_pool(folder: Path, pictures: int, free: bool, seed: int, processes: int) -> None:
    """Renders the pictures that are still missing, in shards of 1,000; a broken-off call continues where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(-(-pictures // SHARD))
    with ProcessPoolExecutor(processes) as executor:
        for _ in executor.map(_render_shard, *zip(*((folder, free, seed, shard) for shard in shards), strict=True)):
            pass


def open_pool(folder: Path, pictures: int) -> PicturePool:
    """Opens a pool that `render_pool` made."""
    shards = range(-(-pictures // SHARD))
    shape = (SHARD, PICTURE_SIZE, PICTURE_SIZE, 3)
    pixels = [numpy.fromfile(folder / f"{shard:04d}.rgb", numpy.uint8).reshape(shape) for shard in shards]
    captions = [line for shard in shards for line in json.loads((folder / f"{shard:04d}.json").read_text("utf-8"))]
    return PicturePool(numpy.concatenate(pixels)[:pictures], captions[:pictures])
