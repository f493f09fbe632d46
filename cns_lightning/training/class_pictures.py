"""Pictures of a concept's class, drawn by the pretrained model: every rank draws its share, one writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_tensors, sha256_of_facts, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.pytorch import Trainer
    from PIL import Image

    from cns_lightning.data.prior_pictures import PriorPictures

FIRST_SEED = 1_000_000
"""Far from the seeds of samples and evaluation, whose pictures must not be trained on."""


def class_latents(
    trainer: Trainer,
    class_word: str,
    prompt: str,
    prior: PriorPictures,
    facts: tuple[list[Any], list[Any]],
    draw: Callable[[list[tuple[str, int]], int, float], list[Image.Image]],
    encode: Callable[[Tensor], Tensor],
) -> Tensor:
    """Returns the encoded pictures of a class, shape (pictures, channels, height, width), float32, scaled.

    They are kept in ``prior/`` of the run folder. All ranks must call it.

    Args:
        trainer: trainer of the run.
        class_word: class word, part of the file's name.
        prompt: prompt of all pictures.
        prior: how many pictures, and how they are drawn; see `data.prior_pictures.PriorPictures`.
        facts: further facts that the pictures follow from, before and behind the settings; others make another file.
        draw: pictures for prompts and seeds, steps and guidance.
        encode: pixels in [-1, 1], shape (pictures, 3, height, width), to scaled latents on the CPU.

    Raises:
        UserError: if the file is damaged or cannot be written.
    """
    place, (before, behind) = RunFolder(trainer.default_root_dir).prior, facts
    digest = sha256_of_facts([*before, prior.pictures, prior.steps, prior.guidance, *behind])[:12]
    name = re.sub(r"[^A-Za-z0-9]+", "-", class_word)
    path = place / f"{name}-{digest}.safetensors"
    if trainer.strategy.broadcast(path.exists()):
        return read_tensors(path)[0]["latents"]
    rank, ranks = trainer.global_rank, trainer.world_size
    pairs = [(prompt, FIRST_SEED + number) for number in range(prior.pictures)]
    drawn = draw(pairs[rank::ranks], prior.steps, prior.guidance)
    encoded = [encode(_pixels(picture)[None])[0] for picture in drawn]
    shares: list[Any] = [encoded]
    if ranks > 1:
        shares = [None] * ranks
        torch.distributed.all_gather_object(shares, encoded)
    latents = torch.stack([shares[number % ranks][number // ranks] for number in range(len(pairs))])
    if trainer.is_global_zero:
        write_tensors(path, {"latents": latents}, {"prompt": prompt})
    return latents


def _pixels(picture: Image.Image) -> Tensor:
    values = torch.from_numpy(numpy.array(picture.convert("RGB"))).permute(2, 0, 1)
    return values.float() / 127.5 - 1
