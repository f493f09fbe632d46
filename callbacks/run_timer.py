"""Seconds, peak memory and versions of the libraries of every stage, in ``timings.json``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from cns_lightning.module import continual
from cns_lightning.runs.folder import RunFolder
from cns_lightning.runs.versions import library_versions
from cns_lightning.storage import read_json, write_json
from cns_lightning.training.peak_memory import peak_memory

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class RunTimer(Callback):
    """Times selection, training and the rest of a stage, and notes the versions of the libraries.

    Must stand first among the callbacks: what happens between its ``on_train_epoch_start`` and the first batch is the
    selection phase, what happens after the last batch until the next stage starts is the finish phase.
    Acts on rank 0 alone. A stage that was continued adds the seconds of its parts, but for one that was killed.
    """

    def __init__(self) -> None:
        self.phase: str | None = None
        self.since = 0.0
        self.stages: dict[str, dict[str, Any]] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the seconds of an earlier part of the run."""
        path = RunFolder(trainer.default_root_dir).timings
        self.stages = read_json(path).get("stages", {}) if path.exists() else {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the selection phase."""
        self._switch(trainer, pl_module, "selection", trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Starts the training phase with the first batch."""
        if self.phase != "training":
            self._switch(trainer, pl_module, "training", trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the finish phase."""
        self._switch(trainer, pl_module, "finish", trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the last phase."""
        self._switch(trainer, pl_module, None, trainer.current_epoch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes what a stage that is being stopped has taken so far."""
        self._switch(trainer, pl_module, None, trainer.current_epoch)

    def _switch(self, trainer: Trainer, module: LightningModule, phase: str | None, stage: int) -> None:
        now = time.monotonic()
        if self.phase is not None:
            entry = self.stages.setdefault(str(self.stage), {"concept": self.concept, "seconds": {}})
            seconds = entry["seconds"]
            seconds[self.phase] = round(seconds.get(self.phase, 0.0) + now - self.since, 3)
            before = entry.get("peak_memory_bytes", {})
            entry["peak_memory_bytes"] = {kind: max(size, before.get(kind, 0)) for kind, size in peak_memory().items()}
            entry["versions"] = list(dict.fromkeys([*entry.get("versions", []), library_versions()]))
            if trainer.is_global_zero:
                write_json(RunFolder(trainer.default_root_dir).timings, {"stages": self.stages})
        self.phase, self.since = phase, now
        if phase is not None:
            self.stage, self.concept = stage, continual(module).sequence.concepts[stage].token
