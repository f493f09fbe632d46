"""After every stage: pictures of every concept learned so far, and of prompts that name none."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lightning.pytorch import Callback

from cns_lightning.data.templates import training_prompt
from cns_lightning.diffusion.sampling import generate, grid
from cns_lightning.run_folder import RunFolder
from cns_lightning.storage import write_atomically

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from PIL import Image

    from cns_lightning.module import ContinualPersonalization

BASE_LABEL = "untouched"


class SampleGrid(Callback):
    """Draws ``samples/stage-K.png`` after stage K, with the same seeds every time.

    One row a concept learned so far, then a row of prompts that name no concept: the first shows forgetting, the second
    drift. Acts in ``on_train_epoch_end``; rank 0 draws and writes. Keeps no state.

    Args:
        pictures: per row; the seeds are 0, 1, ...
        base_prompts: one picture each in the last row.
        steps: of the sampler.
        guidance: scale of classifier-free guidance.
    """

    def __init__(
        self,
        pictures: int = 4,
        base_prompts: list[str] | None = None,
        steps: int = 25,
        guidance: float = 7.5,
    ) -> None:
        self.pictures, self.steps, self.guidance = pictures, steps, guidance
        self.base_prompts = base_prompts or ["a photo of a cat", "a photo of a dog in the snow", "a sketch of a boat"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the grid of the stage that has just ended."""
        module: ContinualPersonalization = pl_module  # type: ignore[assignment]
        module.finish_stage()
        if not trainer.is_global_zero:
            return
        rows, labels = self._draw(module)
        picture = grid(rows, labels, [f"seed {seed}" for seed in range(self.pictures)])
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        write_atomically(RunFolder(trainer.default_root_dir).samples / f"stage-{module.stage}.png", buffer.getvalue())

    def _draw(self, module: ContinualPersonalization) -> tuple[list[list[Image.Image]], list[str]]:
        assert module.base is not None
        concepts = module.sequence.concepts[: module.done_stages]
        prompts = [training_prompt(concept, module.data.templates) for concept in concepts]
        seeds = list(range(self.pictures))
        pipeline = module.base.pipeline()
        drawn = generate(pipeline, prompts, seeds, steps=self.steps, guidance=self.guidance)
        rows = [drawn[start : start + self.pictures] for start in range(0, len(drawn), self.pictures)]
        untouched = self.base_prompts[: self.pictures]
        rows.append(generate(pipeline, untouched, [0], steps=self.steps, guidance=self.guidance))
        return rows, [f"{concept.token} {concept.class_word}" for concept in concepts] + [BASE_LABEL]
