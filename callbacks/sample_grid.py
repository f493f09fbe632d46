"""After every stage: pictures of every concept learned so far, and of prompts that name none."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from cns_lightning.diffusion.sampling import check_steps, generate_pairs
from cns_lightning.diffusion.sheets import grid, pictures_of, sheet_bytes
from cns_lightning.evaluation.questions import BASE_PROMPTS, scoring_text
from cns_lightning.module import continual
from cns_lightning.ranges import Amount, Count, NonNegative
from cns_lightning.registry.record import KEPT_STEP
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.templates import class_training_prompt
from cns_lightning.storage import write_atomically

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from cns_lightning.module import ContinualPersonalization
    from cns_lightning.sequences.sequence import Concept

BASE_LABEL = "untouched"
BASE_MODEL = "base model"
"""Label of the row that the base model draws for the same prompts without the token, above those of a running stage."""


class SampleGrid(Callback):
    """Draws ``samples/stage-K.png`` after stage K, with the same seeds every time.

    One row per concept learned so far, a style with its evaluation prompts in turn (`sample_prompts`), then a row of
    prompts that name no concept: the first shows forgetting, the second drift. What the base model draws for the latter
    is in ``samples/base.png``. While a stage runs,
    ``samples/stage-K-steps.png`` gets a row of the running concept every so many steps, from the same seeds, under a
    row of the base model for the same prompts without tokens. Both sheets also go to the loggers that take pictures
    (TensorBoard, W&B). Acts in ``on_train_batch_start`` and ``on_train_epoch_end``: every rank draws its share, rank 0
    writes. Keeps no state.

    Args:
        pictures: of each concept; the seeds are 0, 1, ...; 0 draws no grids.
        base_prompts: prompts that name no concept, one picture each in the last row.
        steps: number of steps of the sampler.
        guidance: scale of classifier-free guidance.
        every_steps: optimizer steps between two rows of the running concept, the first one before the first step; 0
            draws none.
    """

    def __init__(
        self,
        pictures: Amount = 4,
        base_prompts: list[str] | None = None,
        steps: Count = 25,
        guidance: NonNegative = 7.5,
        every_steps: Amount = 0,
    ) -> None:
        self.pictures, self.steps, self.guidance, self.every_steps = pictures, steps, guidance, every_steps
        self.base_prompts = base_prompts or list(BASE_PROMPTS)
        self.watched = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sees before the first stage whether the sampler can take so many steps; the monitor takes as many.

        Raises:
            UserError: if it cannot.
        """
        check_steps(continual(pl_module).base.noise_scheduler, self.steps, "samples.steps")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Draws a row of the running concept before a step for which it is due."""
        module = continual(pl_module)
        is_within_step = batch_idx % trainer.accumulate_grad_batches
        if not self.pictures or not self.every_steps or module.step % self.every_steps or is_within_step:
            return
        rows, asked = {}, self._row(module, module.concept)
        if self.watched != module.stage:
            plain = [(self._plain(module, prompt), seed) for prompt, seed in asked]
            share = module.draw_as_pretrained(self._own(plain, trainer), self.steps, self.guidance)
            rows[BASE_MODEL], self.watched = gathered(share, len(plain), trainer), module.stage
        share = module.draw_as_trained(self._own(asked, trainer), self.steps, self.guidance)
        rows[step_label(module.step)] = gathered(share, len(asked), trainer)
        self._add_rows(rows, trainer, module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the grid of the stage that has just ended."""
        module = continual(pl_module)
        if self.pictures == 0:
            return
        concepts = module.sequence.concepts[: module.done_stages]
        untouched = [(prompt, 0) for prompt in self.base_prompts]
        if module.stage == 0:
            share = module.draw_as_pretrained(self._own(untouched, trainer), self.steps, self.guidance)
            before = gathered(share, len(untouched), trainer)
            if trainer.is_global_zero:
                sheet = grid([[picture] for picture in before], self.base_prompts, ["seed 0"])
                write_atomically(RunFolder(trainer.default_root_dir).base_sheet, sheet_bytes(sheet))
        pairs = [pair for concept in concepts for pair in self._row(module, concept)] + untouched
        share = generate_pairs(module.base.pipeline(), self._own(pairs, trainer), self.steps, self.guidance)
        drawn = gathered(share, len(pairs), trainer)
        own = self.pictures * len(concepts)
        rows = [drawn[start : start + self.pictures] for start in range(0, own, self.pictures)] + [drawn[own:]]
        if self.every_steps:
            kept = module.registry.records[module.stage].metadata.get(KEPT_STEP)
            self._add_rows({step_label(int(kept or module.step)): rows[module.stage]}, trainer, module)
        if not trainer.is_global_zero:
            return
        labels = [f"{concept.token} {concept.class_word}" for concept in concepts] + [BASE_LABEL]
        picture = grid(rows, labels, [f"seed {seed}" for seed in self.seeds])
        write_atomically(RunFolder(trainer.default_root_dir).sample_sheet(module.stage), sheet_bytes(picture))
        send(picture, "samples", trainer)

    @property
    def seeds(self) -> list[int]:
        """Returns the seeds of a row."""
        return list(range(self.pictures))

    def _plain(self, module: ContinualPersonalization, prompt: str) -> str:
        if prompt == module.data.prompt_of(module.concept):
            return class_training_prompt(module.concept, module.data.templates)
        return scoring_text(prompt, module.sequence)

    def _row(self, module: ContinualPersonalization, concept: Concept) -> list[tuple[str, int]]:
        return list(zip(cycle(module.data.sample_prompts(concept)), self.seeds, strict=False))

    def _own(self, pairs: list[tuple[str, int]], trainer: Trainer) -> list[tuple[str, int]]:
        return pairs[trainer.global_rank :: trainer.world_size]

    def _add_rows(self, rows: dict[str, list[Image.Image]], trainer: Trainer, module: ContinualPersonalization) -> None:
        """Adds rows to the sheet of the running stage; rows of steps that are taken again go."""
        if not trainer.is_global_zero:
            return
        path = RunFolder(trainer.default_root_dir).step_sheet(module.stage)
        begun = pictures_of(path) if path.exists() else {}
        earlier = {step_label(step) for step in range(0, module.step, self.every_steps)} | {BASE_MODEL}
        rows = {label: row for label, row in begun.items() if label in earlier} | rows
        picture = grid(list(rows.values()), list(rows), [f"seed {seed}" for seed in self.seeds])
        write_atomically(path, sheet_bytes(picture))
        send(picture, f"samples/{module.concept.token}", trainer)


def step_label(step: int) -> str:
    """Returns the label of the row that was drawn after some optimizer steps."""
    return f"step {step}"


def send(picture: Image.Image, name: str, trainer: Trainer) -> None:
    """Shows a sheet in every logger of the run that takes pictures."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, numpy.asarray(picture), trainer.global_step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [picture])


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
