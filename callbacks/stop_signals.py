"""When a signal asks the run to stop: at the end of the step, with its state saved."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback

if TYPE_CHECKING:
    from types import FrameType

    from lightning.pytorch import LightningModule, Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignals(Callback):
    """Lets Ctrl-C, SIGTERM and SIGUSR1 end a run at a step's end, after a save; a second Ctrl-C stops at once.

    The handler only sets a flag: a save inside a handler would start collectives at a different place on every rank.
    Acts in ``on_train_start`` (Lightning sets its own handlers just before) and in ``on_train_batch_end``. Every rank
    takes part in agreeing on the flag. Leaves with 128 + the signal's number.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals."""
        self.previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the signals back."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the signals back; leaving on a signal comes this way too."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self.previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise KeyboardInterrupt
        self.asked = number

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Saves and leaves once a signal came; on a stage's last batch the stage is finished first."""
        if trainer.fit_loop._should_accumulate() or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        self._leave_if_asked(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves between two stages, where the previous stage's save stands already."""
        asked = self._agreed(trainer)
        if asked:
            raise SystemExit(128 + asked)

    def _leave_if_asked(self, trainer: Trainer) -> None:
        asked = self._agreed(trainer)
        if asked:
            checkpoint = trainer.checkpoint_callback
            if checkpoint is not None:
                checkpoint.save_now(trainer)  # type: ignore[attr-defined]
            raise SystemExit(128 + asked)

    def _agreed(self, trainer: Trainer) -> int:
        if trainer.world_size == 1:
            return self.asked
        flag = torch.tensor(float(self.asked), device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(flag, reduce_op="max"))
