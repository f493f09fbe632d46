"""Pools of rendered pictures on disk, made once and read by every training stage of the miniature."""

from __future__ import annotations

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy

from cns_lightning.miniature.architecture import PICTURE_SIZE
from cns_lightning.miniature.world import sampling
from cns_lightning.miniature.world.vocabulary import Picture
from cns_lightning.miniature.world.wide import sample_picture_of_parts, sample_wide_picture
from cns_lightning.storage import write_atomically, write_json

SHARD = 1000
SAMPLERS = {
    "base": sampling.sample_picture,
    "plain": partial(sampling.sample_picture, plain=True),
    "free": sampling.sample_free_picture,
    "wide": sample_wide_picture,
    "parts": sample_picture_of_parts,
}


@dataclass(frozen=True)
class PicturePool:
    """Pictures and what they show.

    Attributes:
        pixels: shape (pictures, 64, 64, 3), uint8.
        captions: one a picture.
    """

    pixels: numpy.ndarray
    captions: list[str]


def _sampled_shard(kind: str, seed: int, shard: int) -> list[tuple[Picture, str]]:
    numbers = random.Random(f"{seed}/{kind}/{shard}")
    return [SAMPLERS[kind](numbers) for _ in range(SHARD)]


def _render_shard(folder: Path, kind: str, seed: int, shard: int) -> None:
    path = folder / f"{shard:04d}.rgb"
    if path.exists():
        return
    sampled = _sampled_shard(kind, seed, shard)
    pixels = numpy.stack([numpy.asarray(sampling.render(picture, PICTURE_SIZE)) for picture, _ in sampled])
    write_json(folder / f"{shard:04d}.json", [caption for _, caption in sampled])
    write_atomically(path, pixels.tobytes())


def pool_pictures(pictures: int, kind: str, seed: int) -> list[Picture]:
    """Lists the records a pool was rendered from, in its order."""
    shards = range(-(-pictures // SHARD))
    return [picture for shard in shards for picture, _ in _sampled_shard(kind, seed, shard)][:pictures]


def render_pool(folder: Path, pictures: int, kind: str, seed: int, processes: int) -> None:
    """Renders the pictures that are still missing, in shards of 1,000; a broken-off call continues where it stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(-(-pictures // SHARD))
    with ProcessPoolExecutor(processes) as executor:
        for _ in executor.map(_render_shard, *zip(*((folder, kind, seed, shard) for shard in shards), strict=True)):
            pass


def open_pool(folder: Path, pictures: int) -> PicturePool:
    """Opens a pool that `render_pool` made."""
    shards = range(-(-pictures // SHARD))
    shape = (SHARD, PICTURE_SIZE, PICTURE_SIZE, 3)
    pixels = [numpy.fromfile(folder / f"{shard:04d}.rgb", numpy.uint8).reshape(shape) for shard in shards]
    captions = [line for shard in shards for line in json.loads((folder / f"{shard:04d}.json").read_text("utf-8"))]
    return PicturePool(numpy.concatenate(pixels)[:pictures], captions[:pictures])
