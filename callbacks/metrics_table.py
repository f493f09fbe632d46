"""One row of figures every few steps, in ``metrics.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback

from cns_lightning.module import continual
from cns_lightning.ranges import Amount, Count
from cns_lightning.runs.folder import RunFolder
from cns_lightning.runs.metrics import append_row, read_rows, write_rows
from cns_lightning.training.fixed_noise import fixed_batch
from cns_lightning.training.step_notices import LOSS, PENALTY

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch.optim import Optimizer

    from cns_lightning.module import ContinualPersonalization

SLOTS = {"loss": LOSS, "penalty": PENALTY}


class MetricsTable(Callback):
    """Appends rows to ``metrics.csv``; losses are means over ranks and the steps since the last row.

    Lightning's own CSV logger starts its file anew when a run is continued. Here rows beyond the step that the run
    continues from are dropped, and the sums of an unfinished row travel in the checkpoint, so that a continued run
    writes the rows of an uninterrupted one.
    Acts in ``on_train_start``, ``on_train_batch_start`` and ``on_train_batch_end``; rank 0 writes.

    The column ``fixed_noise_loss`` has the denoising loss of a stage's own samples whose noise and timesteps stay the
    same (`fixed_batch`), before the first step, then every so many steps, and after the last. Beside the training loss,
    which jumps with the timesteps drawn, it shows what was learned.

    Args:
        every_steps: optimizer steps a row.
        fixed_noise_every_steps: optimizer steps between two such losses, rounded up to whole rows; 0 computes none.
        fixed_noise_samples: samples of such a loss.
    """

    def __init__(
        self, every_steps: Count = 10, fixed_noise_every_steps: Amount = 50, fixed_noise_samples: Count = 8
    ) -> None:
        self.every_steps = every_steps
        self.fixed_noise_every_steps, self.fixed_noise_samples = fixed_noise_every_steps, fixed_noise_samples
        self.batch: tuple[int, dict[str, Any]] = (-1, {})
        self.sums: dict[str, torch.Tensor] = {}
        self.count = 0
        self.rates = ("", "")
        self.ahead = 0

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
        path, module = RunFolder(trainer.default_root_dir).metrics, continual(pl_module)
        # A stage that has not begun has no row, not even that before its first step.
        done = module.done_stages
        running = module.step if module.stage >= done else 0
        rows = read_rows(path)
        kept = [row for row in rows if int(row["stage"]) < done]
        # Once a concept was removed, those that are left may have taken more steps than the state that they go on from.
        self.ahead = max(0, int(kept[-1]["step"]) - (trainer.global_step - running)) if kept else 0
        kept += [row for row in rows if running and int(row["stage"]) == done and int(row["stage_step"]) <= running]
        write_rows(path, kept)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Writes a row before a stage's first step, with the fixed noise's loss alone."""
        module = continual(pl_module)
        if batch_idx == 0 and self.fixed_noise_every_steps and trainer.is_global_zero:
            place = (trainer.global_step + self.ahead, module.stage, module.concept.token, 0)
            row = (*place, "", "", "", "", self._fixed_noise_loss(trainer, module))
            append_row(RunFolder(trainer.default_root_dir).metrics, row)

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
                self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.count += 1
        if module.step % self.every_steps and not module.is_stage_end:
            return
        values = {name: float(value) / self.count for name, value in self.sums.items()}
        means = {name: f"{value:.8g}" for name, value in values.items()}
        self.sums, self.count = {}, 0
        # On the host now: the progress line need not wait for a step.
        module.recent_loss = values.get("loss")
        if not trainer.is_global_zero:
            return
        every = self.fixed_noise_every_steps
        # The first row of every so many steps, whether or not rows fall on them.
        is_due = every and (module.is_stage_end or module.step % every < min(every, self.every_steps))
        row = (
            trainer.global_step + self.ahead, module.stage, module.concept.token, module.step,
            means.get("loss", ""), means.get("penalty", ""), *self.rates,
            self._fixed_noise_loss(trainer, module) if is_due else "",
        )  # fmt: skip
        append_row(RunFolder(trainer.default_root_dir).metrics, row)

    @torch.no_grad()
    def _fixed_noise_loss(self, trainer: Trainer, module: ContinualPersonalization) -> str:
        """Computes the loss on the stage's fixed batch with what has been learned so far; on one rank alone."""
        if self.batch[0] != module.stage:
            data = module.data
            made = fixed_batch(
                data.prepared[module.stage], self.fixed_noise_samples, data.context.timesteps, data.seed, module.stage
            )
            self.batch = module.stage, made
        batch = {name: each.to(module.device) if isinstance(each, torch.Tensor) else each
                 for name, each in self.batch[1].items()}  # fmt: skip
        with trainer.precision_plugin.forward_context():
            return f"{float(module.forward_step(batch).losses.mean()):.8g}"
