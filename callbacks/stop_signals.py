"""When a signal asks the run to stop: after the step, with its state saved; in a SLURM job, back into the queue."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback

from cns_lightning.module import continual
from cns_lightning.ranges import Amount
from cns_lightning.runs.folder import RunFolder
from cns_lightning.slurm.job import requeue
from cns_lightning.training.step_notices import SIGNAL_SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from lightning.pytorch import LightningModule, Trainer

# Windows has no SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
assert len(SIGNALS) <= SIGNAL_SLOTS


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restores the original signal handlers on exit; Lightning would restore ours instead."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class StopSignals(Callback):
    """Lets Ctrl-C, SIGTERM and SIGUSR1 end a run at a step's end, after a save; a second Ctrl-C stops at once.

    The handler only sets a flag: a save inside a handler would start collectives at a different place on every rank.
    The flag travels with the step's gradients, so that all ranks leave after the same step. Acts in ``setup`` and
    ``on_train_start`` (Lightning sets handlers of its own in between), ``on_before_backward`` and
    ``on_train_batch_end``. Leaves with 128 + the signal's number. In a job of SLURM rank 0 asks for a new turn first,
    on SIGUSR1 and when SIGTERM means that the job is preempted.

    Args:
        requeue_limit: turns of one SLURM job, after which it is not requeued any more.
    """

    def __init__(self, requeue_limit: Amount = 100) -> None:
        self.requeue_limit = requeue_limit
        self.asked = 0
        self.process = os.getpid()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes over the signals before a model is loaded."""
        if stage == "fit":
            self._take_over()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals again."""
        self._take_over()

    def _take_over(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        # What the command line held back while nothing could answer comes now.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return  # a forked worker of a data loader
        if self.asked and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise KeyboardInterrupt
        self.asked = number

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Tells the other ranks, with the step's gradients."""
        if self.asked:
            continual(pl_module).notices.note_signal(SIGNALS.index(signal.Signals(self.asked)))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Saves and leaves once a signal came to any rank; on a stage's last batch the stage is finished first."""
        module = continual(pl_module)
        if not module.is_step_end or module.is_stage_end:
            return
        for notice in module.recent_notices:
            asked = [number for number, count in zip(SIGNALS, notice.signals, strict=False) if count]
            if asked:
                trainer.save_checkpoint(RunFolder(trainer.default_root_dir).last_checkpoint)
                self._leave(trainer, asked[0])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves between two stages, where the previous stage's save stands already."""
        asked = self._agreed(trainer)
        if asked:
            self._leave(trainer, asked)

    def _agreed(self, trainer: Trainer) -> int:
        if trainer.world_size == 1:
            return self.asked
        flag = torch.tensor(float(self.asked), device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(flag, reduce_op="max"))

    def _leave(self, trainer: Trainer, asked: int) -> None:
        if trainer.is_global_zero:
            folder = RunFolder(trainer.default_root_dir)
            said = requeue(
                folder.requeues, trainer.global_step, asked == getattr(signal, "SIGUSR1", None), self.requeue_limit
            )
            sys.stderr.write(f"stopped by {signal.Signals(asked).name}; the same command goes on from here\n{said}")
        # All must be over before the first process ends: the others are taken down with it, and rank 0 waits longest.
        trainer.strategy.barrier()
        raise SystemExit(128 + asked)
