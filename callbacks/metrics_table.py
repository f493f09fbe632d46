"""One row of figures every few steps, in ``metrics.csv``."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback

from cns_lightning.run_folder import RunFolder
from cns_lightning.storage import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import LightningModule, Trainer

    from cns_lightning.module import ContinualPersonalization

COLUMNS = ("step", "stage", "concept", "stage_step", "loss", "penalty", "learning_rate", "token_learning_rate")


class MetricsTable(Callback):
    """Appends rows to ``metrics.csv``; losses are means over the steps since the row before.

    Lightning's own CSV logger starts its file anew when a run is continued. Here rows beyond the step that the run
    continues from are dropped, and the sums of an unfinished row travel in the checkpoint, so that a continued run
    writes the rows of an uninterrupted one.
    Acts in ``on_train_start`` and ``on_train_batch_end``; rank 0 writes.

    Args:
        every_steps: optimizer steps a row.
    """

    def __init__(self, every_steps: int = 10) -> None:
        self.every_steps = every_steps
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        """Gives the sums of the unfinished row."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the sums of the unfinished row."""
        self.sums, self.count = dict(state_dict["sums"]), state_dict["count"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the rows of steps that will be taken again."""
        if not trainer.is_global_zero:
            return
        path = RunFolder(trainer.default_root_dir).metrics
        kept = [row for row in read_rows(path) if int(row["step"]) <= trainer.global_step]
        write_atomically(path, _as_text([COLUMNS, *(tuple(row[name] for name in COLUMNS) for row in kept)]))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Adds up, and writes a row when it is due; only then a value leaves the device."""
        module: ContinualPersonalization = pl_module  # type: ignore[assignment]
        for name in ("loss", "penalty"):
            value = trainer.callback_metrics.get(name)
            if value is not None:
                self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.count += 1
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if trainer.fit_loop._should_accumulate() or (module.step % self.every_steps and not last):
            return
        means = {name: f"{float(value) / self.count:.8g}" for name, value in self.sums.items()}
        rates = [f"{group['lr']:.8g}" for group in trainer.optimizers[0].param_groups]
        row = (
            trainer.global_step, module.stage, module.concept.token, module.step,
            means.get("loss", ""), means.get("penalty", ""), rates[0], rates[-1],
        )  # fmt: skip
        self.sums, self.count = {}, 0
        if trainer.is_global_zero:
            with RunFolder(trainer.default_root_dir).metrics.open("ab") as file:
                file.write(_as_text([row]))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads a table; no rows where there is no file. A row that a kill cut short is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _as_text(rows: list[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
