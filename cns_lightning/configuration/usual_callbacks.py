"""The callbacks that every run has, and the order of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cns_lightning.callbacks.concept_checkpoint import ConceptCheckpoint
from cns_lightning.callbacks.finite_loss import FiniteLoss
from cns_lightning.callbacks.forgetting_monitor import ForgettingMonitor
from cns_lightning.callbacks.metrics_table import MetricsTable
from cns_lightning.callbacks.run_timer import RunTimer
from cns_lightning.callbacks.sample_grid import SampleGrid
from cns_lightning.callbacks.sequence_progress import SequenceProgress
from cns_lightning.callbacks.snapshots import Snapshots
from cns_lightning.callbacks.stage_end import StageEnd
from cns_lightning.callbacks.stop_signals import StopSignals

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
    "stage_end": StageEnd,
}
AFTER_METHOD = {"samples": SampleGrid, "monitor": ForgettingMonitor, "checkpoint": ConceptCheckpoint}
USUAL = BEFORE_METHOD | AFTER_METHOD


def in_order(callbacks: Sequence[Callback]) -> list[Callback]:
    """Sorts callbacks: bookkeeping first, the method's next, samples and checkpoint last; stable otherwise."""
    first, last = tuple(BEFORE_METHOD.values()), tuple(AFTER_METHOD.values())

    def rank(callback: Callback) -> int:
        kind = type(callback)
        if kind in first:
            return first.index(kind) - len(first)
        return 1 + last.index(kind) if kind in last else 0

    return sorted(callbacks, key=rank)


def completed(callbacks: Sequence[Callback]) -> list[Callback]:
    """Returns callbacks and those of the usual ones that are missing, in order."""
    given = {type(each) for each in callbacks}
    return in_order([*callbacks, *(kind() for kind in USUAL.values() if kind not in given)])
