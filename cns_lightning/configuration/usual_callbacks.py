"""The callbacks that every run has, and the order of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import ModelCheckpoint

from cns_lightning.callbacks.concept_checkpoint import ConceptCheckpoint
from cns_lightning.callbacks.finite_loss import FiniteLoss
from cns_lightning.callbacks.forgetting_monitor import ForgettingMonitor
from cns_lightning.callbacks.metrics_table import MetricsTable
from cns_lightning.callbacks.run_timer import RunTimer
from cns_lightning.callbacks.sample_grid import SampleGrid
from cns_lightning.callbacks.sequence_progress import SequenceProgress
from cns_lightning.callbacks.snapshots import Snapshots
from cns_lightning.callbacks.stage_end import StageEnd
from cns_lightning.callbacks.step_mode import StepMode
from cns_lightning.callbacks.stop_signals import StopSignals
from cns_lightning.configuration.errors import UNFIT
from cns_lightning.errors import Problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import Callback

# By their keys in the configuration, in the order in which Lightning shall call them; those of the method (selection,
# freezing) and the user's come after the progress display and before the samples.
# Signals after metrics: the state saved at a signal must hold the sums of the step just taken. Snapshots before what
# saves and leaves: the step would not be taken again. Whoever looks at a finished stage comes after its end.
BEFORE_METHOD = {
    "timer": RunTimer,
    "progress": SequenceProgress,
    "metrics": MetricsTable,
    "snapshots": Snapshots,
    "finite": FiniteLoss,
    "signals": StopSignals,
    "training": StepMode,
    "stage_end": StageEnd,
}
AFTER_METHOD = {"samples": SampleGrid, "monitor": ForgettingMonitor, "checkpoint": ConceptCheckpoint}
USUAL = BEFORE_METHOD | AFTER_METHOD


def in_order(callbacks: Sequence[Callback]) -> list[Callback]:
    """Sorts callbacks: bookkeeping first, the method's next, samples and checkpoint last; stable otherwise."""
    first, last = list(BEFORE_METHOD), list(AFTER_METHOD)

    def rank(callback: Callback) -> int:
        key = key_of(callback)
        if key in BEFORE_METHOD:
            return first.index(key) - len(first)
        return 1 + last.index(key) if key in AFTER_METHOD else 0

    return sorted(callbacks, key=rank)


def key_of(callback: Callback) -> str:
    """Returns the key of a callback that every run has, or of one derived from it; empty for others."""
    return next((key for key, kind in USUAL.items() if isinstance(callback, kind)), "")


def completed(callbacks: Sequence[Callback]) -> list[Callback]:
    """Returns callbacks and those of the usual ones that are missing, in order.

    Raises:
        UserError: if one cannot be had in a run, or a usual one stands there twice.
    """
    problems, seen = Problems(), set()
    for callback in callbacks:
        name, key = type(callback).__name__, key_of(callback)
        if name in UNFIT:
            problems.add(
                "trainer.callbacks", f"has {name}, which changes what a step is or what it trains", "Take it out"
            )
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            problem = "has a ModelCheckpoint that says no dirpath; it would write among the run's own checkpoints"
            problems.add("trainer.callbacks", problem, "Give it a folder of its own")
        if key in seen:
            problem = f"has {name}, and every run has one such already"
            problems.add("trainer.callbacks", problem, f"Change its settings by the key {key}, or take one out")
        seen.add(key or callback)
    problems.raise_if_any()
    return in_order([*callbacks, *(kind() for key, kind in USUAL.items() if key not in seen)])
