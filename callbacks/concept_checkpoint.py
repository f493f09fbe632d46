"""When the state of a run is written: every few steps, and at every stage's end.

At a stage's end the order is: registry entry, samples, ``checkpoints/stage-K.ckpt``, then ``last.ckpt``; each file is
written to a temporary name, synced and renamed. Whatever moment a process dies at, the newest ``last.ckpt`` is whole
and everything it speaks of is on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import ModelCheckpoint

from cns_lightning.ranges import Count
from cns_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from cns_lightning.module import ContinualPersonalization


class ConceptCheckpoint(ModelCheckpoint):
    """Keeps ``checkpoints/last.ckpt``: every ``every_steps`` optimizer steps and after every stage.

    And ``stage-K.ckpt`` after stage K, a few kilobytes, to which `concepts --rollback` goes back.

    Never on the last batch of a stage: Lightning would then skip the end of this stage and the start of the next when
    it continues, without a word. The save at the stage's end follows at once.
    A ModelCheckpoint, so that Lightning calls it after every other callback and after the module.

    Args:
        every_steps: optimizer steps between two saves within a stage.
    """

    def __init__(self, every_steps: Count = 100) -> None:
        super().__init__(every_n_train_steps=every_steps, save_top_k=0, save_last=True, enable_version_counter=False)
        self.every_steps = every_steps

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing: what the parent remembers are places of this machine."""
        return {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Points the folder at the run folder."""
        self.dirpath = str(RunFolder(trainer.default_root_dir).checkpoints)
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Saves when it is time, unless the stage is about to end or gradients are half accumulated."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or trainer.fit_loop._should_accumulate():
            return
        if trainer.global_step % self.every_steps == 0:
            self.save_now(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves after everything else of the stage is on disk."""
        module: ContinualPersonalization = pl_module  # type: ignore[assignment]
        module.finish_stage()
        trainer.save_checkpoint(RunFolder(trainer.default_root_dir).stage_checkpoint(module.stage))
        self.save_now(trainer)

    def save_now(self, trainer: Trainer) -> None:
        """Writes ``last.ckpt``."""
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
