"""How the whole sequence stands: which concept, which phase, which step, and how long it will take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from cns_lightning.module import continual
from cns_lightning.progress import ProgressDisplay, as_clock
from cns_lightning.ranges import Count, NonNegative
from cns_lightning.runs.folder import RunFolder
from cns_lightning.training.peak_memory import peak_memory

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from cns_lightning.module import ContinualPersonalization


class SequenceProgress(Callback):
    """Shows concept, phase, step, loss, speed, peak memory and the remaining time of the stage and of the sequence.

    Must stand after `RunTimer` and before the callbacks that take long. Acts on rank 0 alone; writes ``log.txt``.

    Args:
        seconds: between two plain lines where there is no terminal.
        refresh_steps: optimizer steps between two refreshes on a terminal.
    """

    def __init__(self, seconds: NonNegative = 10.0, refresh_steps: Count = 5) -> None:
        self.seconds, self.refresh_steps = seconds, refresh_steps
        self.steps_taken, self.training_seconds = 0, 0.0
        self.stages_ended, self.other_seconds = 0, 0.0
        self.since = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says where the run starts or continues."""
        self.display = ProgressDisplay(RunFolder(trainer.default_root_dir).log, self.seconds)
        module = continual(pl_module)
        if trainer.is_global_zero and trainer.global_step:
            self.display.event(f"continuing at step {module.step} of {self._title(trainer, max(0, module.stage))}")
        self.since = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Names the concept that is next."""
        self.other_seconds += self._lap()
        if trainer.is_global_zero:
            self.display.event(f"{self._title(trainer, trainer.current_epoch)}: selecting neurons")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Counts the time outside steps; before the first says what the method has to say of the stage."""
        self.other_seconds += self._lap()
        if trainer.is_global_zero and batch_idx == 0:
            module = continual(pl_module)
            for notice in module.method.notices():
                self.display.event(f"{self._title(trainer, module.stage)}: {notice}")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Refreshes the line."""
        self.training_seconds += self._lap()
        if not continual(pl_module).is_step_end:
            return
        self.steps_taken += 1
        if trainer.is_global_zero and self.steps_taken % self.refresh_steps == 0:
            self.display.status(self._line(trainer, continual(pl_module)))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says that the stage has been trained."""
        self.stages_ended += 1
        if trainer.is_global_zero:
            module = continual(pl_module)
            loss = trainer.callback_metrics.get("loss")
            said = "" if loss is None else f", last loss {float(loss):.4f}"
            self.display.event(
                f"{self._title(trainer, module.stage)}: trained {module.step} steps{said}; drawing samples"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says that the sequence is done."""
        if trainer.is_global_zero:
            total = self.training_seconds + self.other_seconds + self._lap()
            self.display.event(f"done: {continual(pl_module).done_stages} concepts in {as_clock(total)}")

    def _lap(self) -> float:
        now = time.monotonic()
        lap, self.since = now - self.since, now
        return lap

    def _title(self, trainer: Trainer, stage: int) -> str:
        concepts = trainer.datamodule.sequence.concepts  # type: ignore[attr-defined]
        stage = min(stage, len(concepts) - 1)
        return f"concept {stage + 1}/{len(concepts)} {concepts[stage].token} {concepts[stage].class_word}"

    def _line(self, trainer: Trainer, module: ContinualPersonalization) -> str:
        steps = module.data.steps_of(module.stage)
        pace = self.training_seconds / self.steps_taken
        stage_left = (steps - module.step) * pace
        later = range(module.stage + 1, len(module.sequence.concepts))
        overhead = self.other_seconds / (self.stages_ended + 1)
        sequence_left = stage_left + sum(module.data.steps_of(stage) * pace + overhead for stage in later)
        said = "" if module.recent_loss is None else f"loss {module.recent_loss:.4f}, "
        return (
            f"{self._title(trainer, module.stage)}: training {module.step}/{steps}, {said}"
            f"{as_pace(pace)}, peak {max(peak_memory().values()) / 1e9:.1f} GB, "
            f"stage {as_clock(stage_left)} left, sequence {as_clock(sequence_left)} left"
        )


def as_pace(seconds: float) -> str:
    """Formats the seconds of a step as progress bars do: steps a second, or seconds a step where it is slow."""
    return f"{1 / seconds:.1f} it/s" if 0 < seconds < 1 else f"{seconds:.1f} s/it"
