"""A callback that asks its own process to stop, or ends it, as a scheduler, a user or bad luck would."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cns_lightning.callbacks.stop_signals import StopSignals
from cns_lightning.module import continual

CALLBACK = "--trainer.callbacks+=tests.runs.stop_at.StopAt"
PLAN = "TEST_STOP_AT"
"""For runs in processes of their own: rank, step and signal, as in ``1:7:SIGKILL``.

In place of a signal: ``SCANCEL``, which has SLURM send SIGUSR1 to all tasks of the job and waits for it, or ``WAIT``,
which leaves a file ``waiting`` in the run folder and waits for any signal. ``1:0:DISAGREE`` empties the mask of rank 1.
``TWICE`` is an impatient Ctrl-C.
"""
SECONDS = 60.0


class StopAt(Callback):
    """Sends a signal to the process before an optimizer step.

    Attributes:
        step: counted over the whole sequence, from 1. Set by a test; an argument would change the configuration.
    """

    step: int | None = None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets a rank see other neurons, as another processor or another version might."""
        if os.environ.get(PLAN) == f"{trainer.global_rank}:0:DISAGREE":
            module = continual(pl_module)
            assert module.armed is not None
            module.arm(module.armed - module.armed)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sends the signal before the step that is to be the last."""
        rank, step, name = os.environ.get(PLAN, f"0:{self.step or 0}:SIGTERM").split(":")
        if trainer.global_rank != int(rank) or trainer.global_step + 1 != int(step):
            return
        if name == "WAIT" and os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
            return  # the signal has come: on a busy machine before this step
        if name in ("SCANCEL", "WAIT"):
            if name == "SCANCEL":
                subprocess.run(["scancel", "--signal=USR1", os.environ["SLURM_JOB_ID"]], check=True)
            Path(trainer.default_root_dir, "waiting").touch()
            self.wait(trainer)
        elif name == "TWICE":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.Signals[name])

    def wait(self, trainer: Trainer) -> None:
        """Waits until a signal has come to this process."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        signals = next(each for each in callbacks if isinstance(each, StopSignals))
        end = time.monotonic() + SECONDS
        while not signals.asked:
            assert time.monotonic() < end, "no signal came"
            time.sleep(0.05)
