"""The trainer of a run: goes on where its folder stands, and keeps the folder for itself meanwhile."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cns_lightning.callbacks.mask_freezing import MaskFreezing
from cns_lightning.callbacks.stop_signals import handlers_kept
from cns_lightning.configuration.errors import lightning_explained
from cns_lightning.configuration.usual_callbacks import completed
from cns_lightning.doctor.examination import PlannedRun, quick_findings
from cns_lightning.doctor.findings import Severity
from cns_lightning.errors import Problems, UserError
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.report.report import what_next, write_report
from cns_lightning.runs.checkpoint_file import SealedCheckpointIO, newest_checkpoint
from cns_lightning.training.opening import note_moved
from cns_lightning.training.position import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch import Callback

    from cns_lightning.data.module import ConceptDataModule
    from cns_lightning.module import ContinualPersonalization
    from cns_lightning.runs.config import RunConfig
    from cns_lightning.runs.folder import RunFolder
    from cns_lightning.sequences.sequence import Sequence

# What a continual run needs of Lightning's trainer.
DEFAULTS: dict[str, Any] = {
    "max_steps": -1,
    "reload_dataloaders_every_n_epochs": 1,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "enable_progress_bar": False,
    "logger": False,
}


@dataclass(frozen=True)
class CheckedRun:
    """A run whose settings have been checked.

    Attributes:
        folder: run folder.
        sequence: sequence that is to be learned.
        learned: tokens that the folder has learned, whose pictures are not needed any more.
        config: what goes to ``config.yaml``.
    """

    folder: RunFolder
    sequence: Sequence
    learned: tuple[str, ...]
    config: RunConfig


class ContinualTrainer(Trainer):
    """Lightning's trainer, whose epochs are the stages of a sequence; with the callbacks that every run has, in order.

    Attributes:
        run: checked run that `fit` learns.

    Args:
        settings: those of Lightning's trainer.
    """

    def __init__(self, **settings: Any) -> None:
        settings["callbacks"] = completed(_listed(settings.get("callbacks")))
        settings["plugins"] = [*_listed(settings.get("plugins")), SealedCheckpointIO()]
        super().__init__(**settings)
        self.run: CheckedRun | None = None
        # `StopSignals` tells all ranks of a signal; Lightning's own exchange would wait for the device at every batch.
        self.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def fit(  # pyright: ignore[reportIncompatibleMethodOverride] - a run goes on by itself and has no other loaders
        self, model: ContinualPersonalization, datamodule: ConceptDataModule
    ) -> None:
        """Learns the sequence, or what is left of it; writes the run folder.

        Args:
            model: module with the method.
            datamodule: serves the sequence's pictures.

        Raises:
            UserError: for what the user must change, before anything slow starts.
        """
        run = self.checked_run(model, datamodule)
        callbacks: list[Callback] = self.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        if model.method.needs_neurons and not any(isinstance(each, MaskFreezing) for each in callbacks):
            problem = f"has no MaskFreezing, which arms every stage of {type(model.method).__name__} with its neurons"
            remedy = "Add class_path: cns_lightning.callbacks.mask_freezing.MaskFreezing behind ImportanceScoring"
            raise UserError("trainer.callbacks", problem, remedy)
        datamodule.learned, datamodule.sequence = run.learned, run.sequence
        checkpoint, count = newest_checkpoint(run.folder.last_checkpoint, say), len(run.sequence.concepts)
        is_finished = checkpoint is not None and _finished_stages(checkpoint) >= count
        if not is_finished:
            say_what_was_found(run)
        for sentence in () if is_finished else datamodule.check_pictures():
            say(sentence)
        with _writing(run):
            if is_finished:
                # Prompts and what else touches nothing that is learned may have changed: `test` reads them from there.
                note_moved(run.folder, model.base_loras, self.is_global_zero)
                say(f"{run.folder.path}: the run is finished, all {count} concepts are learned")
                if self.is_global_zero:
                    if not run.folder.report.exists():  # it ended between its last save and that
                        write_report(run.folder)
                    say(what_next(run.folder, NeuronRegistry.load(run.folder.registry)))
                return
            with handlers_kept(), lightning_explained():
                super().fit(model, datamodule=datamodule, ckpt_path=str(checkpoint) if checkpoint else None)
        if model.done_stages == count and self.is_global_zero:
            write_report(run.folder)
            say(what_next(run.folder, model.registry))
        if model.done_stages < count:
            remedy = "Take out what stops a training early, and run the same command again"
            raise UserError("trainer", f"something ended the run after {model.done_stages} of {count} concepts", remedy)

    def checked_run(self, model: ContinualPersonalization, datamodule: ConceptDataModule) -> CheckedRun:
        """Returns what `fit` learns.

        Raises:
            RuntimeError: if nothing has been checked; `continual_trainer` makes a trainer that checks by itself.
        """
        if self.run is None:
            raise RuntimeError("this trainer has no run; make it with continual_trainer")
        return self.run


def say_what_was_found(run: CheckedRun) -> None:
    """Says what a look at the headers of pictures, at words and at the machine finds worth a look; `doctor` says more.

    Raises:
        UserError: for what would stop the run later, such as a full disk.
    """
    problems = Problems()
    for finding in quick_findings(PlannedRun(run.sequence, run.learned, run.config, run.folder)):
        if finding.severity is Severity.STOPS:
            problems.add(finding.place, finding.problem, finding.remedy)
        elif finding.severity is Severity.WARNING:
            say(str(finding))
    problems.raise_if_any()


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


@contextmanager
def _writing(run: CheckedRun) -> Iterator[None]:
    """Keeps the run folder for this run while it lasts, and starts with its configuration; rank 0 alone writes.

    Raises:
        UserError: if the folder cannot be written to, or another process does.
    """
    if rank_zero_only.rank != 0:
        yield
        return
    run.folder.create()
    with run.folder.held():
        run.config.write()
        yield


def _finished_stages(checkpoint: Any) -> int:
    return Position.read(SealedCheckpointIO().load_checkpoint(checkpoint)).done_stages


def say(text: str) -> None:
    """Says something where progress is shown, once for all processes."""
    if rank_zero_only.rank == 0:
        sys.stderr.write(f"{text}\n")
