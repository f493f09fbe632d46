"""Pictures of a concept's class, drawn by the pretrained model, that hold it to what it knew of the class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from cns_lightning.ranges import Amount, Count, NonNegative
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.templates import class_training_prompt
from cns_lightning.storage import read_tensors, sha256_of_facts, write_tensors

if TYPE_CHECKING:
    from cns_lightning.sequences.sequence import Concept
    from cns_lightning.sequences.templates import PromptTemplates

FIRST_SEED = 1_000_000
"""Far from the seeds of samples and evaluation, whose pictures must not be trained on."""


@dataclass(frozen=True)
class Prior:
    """How many pictures of the class a method with prior preservation gets; others draw none.

    Attributes:
        pictures: of each class; 0 draws none.
        steps: of the sampler.
        guidance: scale of classifier-free guidance.

    Source: Custom Diffusion (arXiv 2212.04488), generated regularization pictures; docs/methods.md 4.2.
    """

    pictures: Amount = 0
    steps: Count = 50
    guidance: NonNegative = 6.0


def prior_latents(trainer: Any, concept: Concept, templates: PromptTemplates, prior: Prior) -> Tensor:
    """Gives the encoded pictures of a concept's class, shape (pictures, channels, height, width), float32, scaled.

    They are kept in ``prior/`` of the run folder. Every rank draws its share, all must ask, rank 0 writes.

    Raises:
        UserError: if the file is damaged or cannot be written.
    """
    module, folder = trainer.lightning_module, RunFolder(trainer.default_root_dir)
    prompt = class_training_prompt(concept, templates)
    facts = [module.registry.base_fingerprint, prompt, prior.pictures, prior.steps, prior.guidance, module.base_dtype]
    digest = sha256_of_facts(facts)[:12]
    path = folder.prior / f"{re.sub(r'[^A-Za-z0-9]+', '-', concept.class_word)}-{digest}.safetensors"
    if trainer.strategy.broadcast(path.exists()):
        return read_tensors(path)[0]["latents"]
    rank, ranks = trainer.global_rank, trainer.world_size
    own = list(range(prior.pictures))[rank::ranks]
    drawn = module.draw_as_pretrained([(prompt, FIRST_SEED + number) for number in own], prior.steps, prior.guidance)
    encoded = [module.encode(_pixels(picture)[None])[0] for picture in drawn]
    shares: list[Any] = [encoded]
    if ranks > 1:
        shares = [None] * ranks
        torch.distributed.all_gather_object(shares, encoded)
    latents = torch.stack([shares[number % ranks][number // ranks] for number in range(prior.pictures)])
    if trainer.is_global_zero:
        write_tensors(path, {"latents": latents}, {"prompt": prompt})
    return latents


def _pixels(picture: Any) -> Tensor:
    values = torch.from_numpy(numpy.array(picture.convert("RGB"))).permute(2, 0, 1)
    return values.float() / 127.5 - 1
