"""A callback that asks its own process to stop, as a scheduler would."""

import os
import signal
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StopAt(Callback):
    """Sends SIGTERM to the process once an optimizer step has been taken.

    Attributes:
        step: counted over the whole sequence, from 1. Set by a test; an argument would change the configuration.
    """

    step: int | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sends the signal before the step that is to be the last."""
        if trainer.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
