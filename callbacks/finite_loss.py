"""When a loss is not finite: the run stops, says which picture it was, and keeps a state that can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from cns_lightning.errors import RunStopped
from cns_lightning.module import continual
from cns_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from cns_lightning.module import ContinualPersonalization
    from cns_lightning.training.step_notices import Notice

REMEDY = (
    "The step's gradient was left out and the state is saved: the same command goes on with the next step. "
    "If it happens again, lower the learning rates, or train in bf16-mixed or 32-true"
)


class FiniteLoss(Callback):
    """Stops the run when a loss or a gradient is nan or infinite, with its state saved.

    The module has left the gradient of that step out, so nothing that is saved is spoilt. On a GPU the host learns of
    it one step later and never waits for it. Acts in ``on_train_batch_end``, on every rank at the same step; after a
    stage's last batch the stage is finished and saved first. Keeps no state.
    """

    def __init__(self) -> None:
        self.complaint: str | None = None

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Looks at what has come from the device.

        Raises:
            RunStopped: naming step, timestep and picture.
        """
        module = continual(pl_module)
        if not module.is_step_end:
            return
        for notice in module.recent_notices:
            if not notice.is_finite:
                self.complaint = self.complaint or _complaint(module, notice)
        if self.complaint and not module.is_stage_end:
            trainer.save_checkpoint(RunFolder(trainer.default_root_dir).last_checkpoint)
            self._stop(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops between two stages if it was the last batch; raises what `on_train_batch_end` raises."""
        self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops at the end if it was the very last batch; raises what `on_train_batch_end` raises."""
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        if self.complaint:
            trainer.strategy.barrier()
            raise RunStopped(self.complaint)


def _complaint(module: ContinualPersonalization, notice: Notice) -> str:
    where = f"{module.concept.token}, step {notice.step + 1} of the stage"
    if not notice.samples:
        return f"{where}: the gradient is nan or infinite, though every loss is a number. {REMEDY}"
    samples = [module.data.describe_sample(module.stage, notice.step, sample) for sample in notice.samples]
    return f"{where}: the loss is nan or infinite at {'; '.join(samples)}. {REMEDY}"
