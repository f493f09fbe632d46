"""When a stage's last step is taken: what it learned is kept and folded into the model, before anyone looks at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch import Callback

from cns_lightning.module import continual

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class StageEnd(Callback):
    """Finishes every stage, on every rank, before the callbacks that compare, draw, score and save.

    Acts in ``on_train_epoch_end``, after timer and progress, so that a fusion counts as the stage's finish phase. Keeps
    no state.
    """

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the record of the stage in the registry and folds it into the model."""
        continual(pl_module).finish_stage()
