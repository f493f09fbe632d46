"""A callback that asks its own process to stop, or ends it, as a scheduler, a user or bad luck would."""

import os
import signal
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

PLAN = "TEST_STOP_AT"
"""For runs in processes of their own: rank, step and signal, as in ``1:7:SIGKILL``."""


class StopAt(Callback):
    """Sends a signal to the process before an optimizer step.

    Attributes:
        step: counted over the whole sequence, from 1. Set by a test; an argument would change the configuration.
    """

    step: int | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sends the signal before the step that is to be the last."""
        rank, step, name = os.environ.get(PLAN, f"0:{self.step or 0}:SIGTERM").split(":")
        if trainer.global_rank == int(rank) and trainer.global_step + 1 == int(step):
            os.kill(os.getpid(), signal.Signals[name])
