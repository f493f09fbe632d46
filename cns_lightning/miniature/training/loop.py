"""The loop that every training stage of the miniature shares: schedule, averaged weights, continuation, progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cns_lightning.miniature.training.pace import Pace, fastest_pace, paces
from cns_lightning.storage import read_tensors, write_tensors


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage learns: a linear warm-up, a plateau, a linear decay to zero.

    A plateau instead of a cosine lets a longer run continue from the plateau of a shorter one.

    Attributes:
        steps: optimizer steps in all.
        learning_rate: on the plateau.
        warmup: steps of the warm-up.
        decay_share: share of the steps at the end that decay.
        averaging: decay of the exponential moving average of the weights.
    """

    steps: int
    learning_rate: float
    warmup: int = 200
    decay_share: float = 0.25
    averaging: float = 0.999

    def rate(self, step: int) -> float:
        """Returns the learning rate at a step."""
        decay = max(1, int(self.decay_share * self.steps))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, (self.steps - step) / decay)


class TrainingLoop:
    """Trains a module on a loss that is a function of the step, and continues where an earlier call stopped.

    State kept in ``folder/state.safetensors``: the weights, their moving average, the optimizer's moments, the step; in
    ``folder/pace.json`` how fast a step is in each precision, and which was chosen.
    """

    def __init__(self, name: str, module: nn.Module, folder: Path, schedule: Schedule, save_every: int = 250) -> None:
        self.name, self.module, self.schedule, self.save_every = name, module, schedule, save_every
        self.path = folder / "state.safetensors"
        self.parameters = dict(module.named_parameters())
        self.device, self.pace = next(module.parameters()).device.type, Pace()
        self.compiled: dict[nn.Module, Callable[..., Any]] = {}
        self.oracle: Tensor | None = None
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=schedule.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.averages = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.step = 0
        if self.path.exists():
            self._load()

    def run(self, loss_at: Callable[[int], Tensor], watch: Callable[[int], None] | None = None) -> None:
        """Takes the remaining steps; ``watch(step)`` is called beside every save."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept, candidates = self.path.with_name("pace.json"), paces(self.device)
        self.pace = fastest_pace(kept, candidates, lambda pace: self._seconds(pace, loss_at))
        started, first, running = time.monotonic(), self.step, torch.zeros((), device=self.device)
        while self.step < self.schedule.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule.rate(self.step)
            loss = self._backward(loss_at)
            nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            self._average()
            running += loss.detach()
            if self.step % 50 == 0:
                pace = (time.monotonic() - started) / (self.step - first)
                left = pace * (self.schedule.steps - self.step) / 60
                print(  # noqa: T201 - a training script speaks on standard output
                    f"{self.name} step {self.step}/{self.schedule.steps} loss {float(running) / 50:.4f} "
                    f"{pace:.3f} s a step, {left:.0f} min left",
                    flush=True,
                )
                running.zero_()
            if self.step % self.save_every == 0 or self.step == self.schedule.steps:
                self._save()
                if watch is not None:
                    watch(self.step)

    def autocast(self) -> torch.autocast:
        """Returns the mixed precision of the training, for ``loss_at``."""
        return self.pace.autocast(self.device)

    def fast(self, module: nn.Module) -> Callable[..., Any]:
        """Returns a part of the training in the form of the pace, for ``loss_at``."""
        if not self.pace.compiled:
            return module
        if module not in self.compiled:
            self.compiled[module] = torch.compile(module)
        return self.compiled[module]

    def _backward(self, loss_at: Callable[[int], Tensor]) -> Tensor:
        with self.pace.attention():
            loss = loss_at(self.step)
            loss.backward()
        return loss

    def _seconds(self, pace: Pace, loss_at: Callable[[int], Tensor], repetitions: int = 3) -> float:
        """Measures a step at a pace, the best of some after one that warms up; changes nothing.

        Infinite where the gradients are not those of the first pace: on a CPU, torch 2.13 compiled UNet and decoder to
        code that left nine tenths of the gradients at zero, without a word.
        """
        before, self.pace, measured = self.pace, pace, []
        for _ in range(1 + repetitions):
            self.optimizer.zero_grad(set_to_none=True)
            started = time.perf_counter()
            self._backward(loss_at).item()  # waits for a GPU
            measured.append(time.perf_counter() - started)
        gradients = torch.cat([value.grad.flatten() for value in self.parameters.values() if value.grad is not None])
        self.optimizer.zero_grad(set_to_none=True)
        self.pace = before
        if self.oracle is None:
            self.oracle = gradients
        agree = gradients.shape == self.oracle.shape and (gradients - self.oracle).norm() < 0.1 * self.oracle.norm()
        return min(measured[1:]) if agree else float("inf")

    def load_averages(self) -> None:
        """Puts the averaged weights into the module."""
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(self.averages[name])

    def _average(self) -> None:
        # A young average follows fast, or the random start would weigh in for thousands of steps.
        weight = 1 - min(self.schedule.averaging, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.averages.values()), list(self.parameters.values()), weight)

    def _save(self) -> None:
        tensors = {f"weights/{name}": value.detach() for name, value in self.parameters.items()}
        tensors |= {f"average/{name}": value for name, value in self.averages.items()}
        for name, value in self.parameters.items():
            state = self.optimizer.state.get(value, {})
            tensors |= {f"{key}/{name}": state[key] for key in ("exp_avg", "exp_avg_sq") if key in state}
        write_tensors(
            self.path, {name: value.contiguous() for name, value in tensors.items()}, {"step": str(self.step)}
        )

    def _load(self) -> None:
        tensors, metadata = read_tensors(self.path)
        self.step = int(metadata["step"])
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(tensors[f"weights/{name}"])
                self.averages[name].copy_(tensors[f"average/{name}"])
                self.optimizer.state[value] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": tensors[f"exp_avg/{name}"].to(value.device, memory_format=torch.preserve_format),
                    "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(value.device, memory_format=torch.preserve_format),
                }
