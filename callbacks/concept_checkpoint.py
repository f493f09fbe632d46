"""When the state of a run is written: every few steps, and at every stage's end.

At a stage's end the order is: registry entry, samples, ``checkpoints/stage-K.ckpt``, then ``last.ckpt``; each file is
written to a temporary name, synced and renamed. Whatever moment a process dies at, the newest ``last.ckpt`` is whole
and everything it speaks of is on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Checkpoint

from cns_lightning.module import continual
from cns_lightning.ranges import Count
from cns_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class ConceptCheckpoint(Checkpoint):
    """Keeps ``checkpoints/last.ckpt``: every ``every_steps`` optimizer steps and after every stage.

    And ``stage-K.ckpt`` after stage K, a few kilobytes, to which `concepts --rollback` goes back.

    Never on the last batch of a stage: Lightning would then skip the end of this stage and the start of the next when
    it continues, without a word. The save at the stage's end follows at once.
    A Checkpoint, so that Lightning calls it after every other callback and after the module.

    Args:
        every_steps: optimizer steps between two saves within a stage.
    """

    def __init__(self, every_steps: Count = 100) -> None:
        self.every_steps = every_steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Saves when it is time, unless the stage is about to end or gradients are half accumulated."""
        module = continual(pl_module)
        if module.is_step_end and not module.is_stage_end and trainer.global_step % self.every_steps == 0:
            trainer.save_checkpoint(RunFolder(trainer.default_root_dir).last_checkpoint)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves after everything else of the stage is on disk."""
        folder = RunFolder(trainer.default_root_dir)
        trainer.save_checkpoint(folder.stage_checkpoint(continual(pl_module).stage))
        trainer.save_checkpoint(folder.last_checkpoint)
