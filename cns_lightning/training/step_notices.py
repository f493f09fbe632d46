"""What a step tells the host without making it wait: its loss, signals to stop, losses that are not finite.

One vector on the device, summed over ranks together with the gradients. On a GPU the host reads it one step later from
pinned memory: the copy of the step before is long done by then, so neither side waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SIGNAL_SLOTS = 3
LOSS, PENALTY, GRADIENT = SIGNAL_SLOTS, SIGNAL_SLOTS + 1, SIGNAL_SLOTS + 2
FIRST_SAMPLE = SIGNAL_SLOTS + 3


@dataclass(frozen=True)
class Notice:
    """What all ranks together said about one step.

    Attributes:
        step: the optimizer step of the stage, from 0.
        signals: for each kind of signal, how many ranks got it.
        samples: samples of the step whose loss was not finite.
        has_finite_gradient: False if the gradient was not finite.
    """

    step: int
    signals: tuple[int, ...]
    samples: tuple[int, ...]
    has_finite_gradient: bool

    @property
    def is_finite(self) -> bool:
        """Returns whether the step was one that could be taken."""
        return self.has_finite_gradient and not self.samples


class StepNotices:
    """The vector of one step after another.

    Attributes:
        vector: shape (slots,), float32: signals, loss, penalty, gradient, one slot a sample of the step.
        has_penalty: whether the method adds one to the loss.

    Args:
        samples: number of samples of a step, over all ranks and accumulated batches.
        ranks: number of processes.
        device: device of the steps.
    """

    def __init__(self, samples: int, ranks: int = 1, device: torch.device | str = "cpu") -> None:
        self.ranks = ranks
        self.vector = torch.zeros(FIRST_SAMPLE + samples, device=device)
        self.has_penalty = False
        self.is_delayed = self.vector.is_cuda
        self.waiting: list[tuple[int, Tensor, Any]] = []

    def begin(self) -> None:
        """Empties the vector for a new step."""
        self.vector.zero_()

    def note_losses(self, losses: Tensor, penalty: Tensor | None, first: int, share: float) -> None:
        """Notes the losses of a batch.

        Args:
            losses: shape (batch,).
            penalty: penalty of the method, a scalar.
            first: number of the batch's first sample within the step.
            share: share of this batch in its rank's part of the step.
        """
        losses = losses.detach()
        self.vector[LOSS] += losses.mean() * share
        self.has_penalty = penalty is not None
        if penalty is not None:
            self.vector[PENALTY] += penalty.detach() * share
        start = FIRST_SAMPLE + first
        self.vector[start : start + len(losses)] = (~torch.isfinite(losses)).float()

    def note_signal(self, slot: int) -> None:
        """Notes that this rank was asked to stop."""
        self.vector[slot] = 1.0

    def note_gradients(self, gradients: list[Tensor], is_scaled: bool = False) -> Tensor:
        """Notes whether the gradients, already averaged over ranks, are finite.

        Args:
            gradients: gradients of everything that is trained.
            is_scaled: half precision with a loss scale, where an infinite gradient is how the scale is found.

        Returns:
            A bool scalar on the device: the step must not be taken.
        """
        norms = torch.stack([torch.linalg.vector_norm(gradient, ord=torch.inf) for gradient in gradients])
        unfit = ~torch.isfinite(norms).all()
        if not is_scaled:
            self.vector[GRADIENT] = unfit
        return unfit | (self.vector[FIRST_SAMPLE:] > 0).any()

    def mean(self, slot: int) -> Tensor:
        """Returns the mean over ranks of the loss or the penalty of the step just taken, a scalar on the device."""
        return self.vector[slot] / self.ranks

    def publish(self, step: int) -> None:
        """Sends the vector of a step on its way to the host."""
        if not self.is_delayed:
            self.waiting.append((step, self.vector.clone(), None))
            return
        kept = torch.empty(self.vector.shape, pin_memory=True)
        kept.copy_(self.vector, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self.waiting.append((step, kept, arrived))

    def read(self, wait: bool = False) -> list[Notice]:
        """Returns the notices that have come since the last call; the same ones at the same step on every rank.

        Args:
            wait: also for the step just taken.
        """
        held_back = 1 if self.is_delayed and not wait else 0
        ready, self.waiting = self.waiting[: len(self.waiting) - held_back], self.waiting[-1:] if held_back else []
        notices = []
        for step, kept, arrived in ready:
            if arrived is not None:
                arrived.synchronize()
            values = kept.tolist()
            samples = tuple(number for number, value in enumerate(values[FIRST_SAMPLE:]) if value)
            signals = tuple(round(value) for value in values[:SIGNAL_SLOTS])
            notices.append(Notice(step, signals, samples, not values[GRADIENT]))
        return notices
