"""After every stage: pictures of every concept learned so far, and of prompts that name none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy
import torch
from lightning.pytorch import Callback
from PIL import Image

from cns_lightning.diffusion.sampling import check_steps, generate_pairs
from cns_lightning.diffusion.sheets import grid, sheet_bytes
from cns_lightning.evaluation.questions import BASE_PROMPTS
from cns_lightning.module import continual
from cns_lightning.ranges import Amount, Count, NonNegative
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import write_atomically

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

BASE_LABEL = "untouched"


class SampleGrid(Callback):
    """Draws ``samples/stage-K.png`` after stage K, with the same seeds every time.

    One row a concept learned so far, then a row of prompts that name no concept: the first shows forgetting, the second
    drift. Acts in ``on_train_epoch_end``: every rank draws its share, rank 0 writes. Keeps no state.

    Args:
        pictures: per row; the seeds are 0, 1, ...; 0 draws no grids.
        base_prompts: one picture each in the last row.
        steps: number of steps of the sampler.
        guidance: scale of classifier-free guidance.
    """

    def __init__(
        self,
        pictures: Amount = 4,
        base_prompts: list[str] | None = None,
        steps: Count = 25,
        guidance: NonNegative = 7.5,
    ) -> None:
        self.pictures, self.steps, self.guidance = pictures, steps, guidance
        self.base_prompts = base_prompts or list(BASE_PROMPTS)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sees before the first stage whether the sampler can take so many steps; the monitor takes as many.

        Raises:
            UserError: if it cannot.
        """
        check_steps(continual(pl_module).base.noise_scheduler, self.steps, "samples.steps")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the grid of the stage that has just ended."""
        module = continual(pl_module)
        if self.pictures == 0:
            return
        concepts = module.sequence.concepts[: module.done_stages]
        untouched = self.base_prompts[: self.pictures]
        pairs = [(module.data.prompt_of(concept), seed) for concept in concepts for seed in range(self.pictures)]
        pairs += [(prompt, 0) for prompt in untouched]
        share = generate_pairs(
            module.base.pipeline(), pairs[trainer.global_rank :: trainer.world_size], self.steps, self.guidance
        )
        drawn = gathered(share, len(pairs), trainer)
        if not trainer.is_global_zero:
            return
        rows = [drawn[start : start + self.pictures] for start in range(0, len(drawn), self.pictures)]
        labels = [f"{concept.token} {concept.class_word}" for concept in concepts] + [BASE_LABEL]
        picture = grid(rows, labels, [f"seed {seed}" for seed in range(self.pictures)])
        write_atomically(RunFolder(trainer.default_root_dir).sample_sheet(module.stage), sheet_bytes(picture))


def gathered(share: list[Image.Image], total: int, trainer: Trainer) -> list[Image.Image]:
    """Returns every rank all pictures in order, each rank having drawn every ranks-th of them, beginning with its own.

    Args:
        share: this rank's pictures, all of one size.
        total: pictures of all ranks.
        trainer: knows the ranks.
    """
    ranks = trainer.world_size
    if ranks == 1:
        return share
    arrays = [numpy.asarray(picture) for picture in share]
    # Rank 0 always has a picture; another may have none.
    size: Any = trainer.strategy.broadcast(arrays[0].shape if arrays else None)
    padded = numpy.zeros((-(-total // ranks), *size), numpy.uint8)
    for number, array in enumerate(arrays):
        padded[number] = array
    own = torch.from_numpy(padded).to(trainer.strategy.root_device)
    parts = [torch.empty_like(own) for _ in range(ranks)]
    torch.distributed.all_gather(parts, own)
    everyone = [part.cpu().numpy() for part in parts]
    return [Image.fromarray(everyone[number % ranks][number // ranks]) for number in range(total)]
