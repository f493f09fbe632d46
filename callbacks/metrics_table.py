"""One row of figures every few steps, in ``metrics.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback

from cns_lightning.module import continual
from cns_lightning.ranges import Count
from cns_lightning.runs.folder import RunFolder
from cns_lightning.runs.metrics import append_row, read_rows, write_rows
from cns_lightning.training.step_notices import LOSS, PENALTY

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch.optim import Optimizer

SLOTS = {"loss": LOSS, "penalty": PENALTY}


class MetricsTable(Callback):
    """Appends rows to ``metrics.csv``; losses are means over ranks and the steps since the last row.

    Lightning's own CSV logger starts its file anew when a run is continued. Here rows beyond the step that the run
    continues from are dropped, and the sums of an unfinished row travel in the checkpoint, so that a continued run
    writes the rows of an uninterrupted one.
    Acts in ``on_train_start`` and ``on_train_batch_end``; rank 0 writes.

    Args:
        every_steps: optimizer steps a row.
    """

    def __init__(self, every_steps: Count = 10) -> None:
        self.every_steps = every_steps
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0
        self.rates = ("", "")

    def state_dict(self) -> dict[str, Any]:
        """Returns the sums of the unfinished row."""
        return {"sums": dict(self.sums), "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the sums of the unfinished row."""
        self.sums, self.count = dict(state_dict["sums"]), state_dict["count"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drops the rows of steps that will be taken again."""
        if not trainer.is_global_zero:
            return
        path = RunFolder(trainer.default_root_dir).metrics
        write_rows(path, [row for row in read_rows(path) if int(row["step"]) <= trainer.global_step])

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Notes the learning rates with which the step is taken: after it, a schedule has moved them on."""
        rates = [f"{group['lr']:.8g}" for group in optimizer.param_groups]
        self.rates = rates[0], rates[-1]

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Adds up, and writes a row when it is due; only then a value leaves the device."""
        module = continual(pl_module)
        if not module.is_step_end:
            return
        for name, slot in SLOTS.items():
            if name != "penalty" or module.notices.has_penalty:
                value = module.notices.mean(slot)
                self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.count += 1
        if module.step % self.every_steps and not module.is_stage_end:
            return
        means = {name: f"{float(value) / self.count:.8g}" for name, value in self.sums.items()}
        row = (
            trainer.global_step, module.stage, module.concept.token, module.step,
            means.get("loss", ""), means.get("penalty", ""), *self.rates,
        )  # fmt: skip
        self.sums, self.count = {}, 0
        if trainer.is_global_zero:
            append_row(RunFolder(trainer.default_root_dir).metrics, row)
