"""Sees before anything is learned whether ``fit`` and ``test`` take what an experiment gives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_lightning.configuration.continuation import check_unchanged, comparable
from cns_lightning.configuration.parser import checked_configuration
from cns_lightning.diffusion.devices import available_device
from cns_lightning.errors import SeveralUserErrors, UserError
from cns_lightning.evaluation.judges import clip_encoder, dino_encoder, judge_of
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cns_lightning.experiments.comparison import Run
    from cns_lightning.experiments.scoring_options import ScoringOptions

DEVICES, ACCELERATOR = ("trainer.devices", "trainer.strategy"), "trainer.accelerator"
SEEDS = ("seed_everything", "model.seed", "data.seed")


def check(path: Path, runs: Iterable[Run]) -> None:
    """Sees before anything is learned whether `fit` and `test` will take what they are given.

    Args:
        path: path of the file that describes the runs, for the message.
        runs: all of them.

    Raises:
        UserError: naming all problems of the first run that would be refused.
    """
    judges: set[tuple[str, str | None]] = set()
    parsed: dict[tuple[tuple[str, ...], tuple[str, ...], str], dict[str, Any]] = {}
    tests: set[ScoringOptions] = set()
    for run in runs:
        # Seeds change nothing that could be refused in a new folder, nor does a concept of a set by itself.
        stack = (run.files, run.fit, run.set_name)
        if stack not in parsed:
            config = new_configuration(path, run)
            parsed[stack] = comparable(config)
            check_snapshots(path, run, config)
            judges.add((run.test.judge or judge_of(str(config.model.base_model)), run.test.dino))
            tests.add(run.test)
        check_goes_on(run, parsed[stack])
    for test in tests:
        check_devices(path, test)
    for judge, dino in judges:
        clip_encoder(judge, "cpu", f"{path}: test.judge")
        dino_encoder(dino, "cpu", f"{path}: test.dino")


def check_devices(path: Path, test: ScoringOptions) -> None:
    """Refuses devices that `test` would not find: every run has one GPU, where there are any.

    Raises:
        UserError: naming the key.
    """
    try:
        kind, _, number = available_device(test.device).partition(":")
    except UserError as error:
        raise UserError(f"{path}: test.device", error.problem, "Leave it out, or write cpu") from error
    if kind == "cuda" and number not in ("", "0"):
        remedy = "Leave it out; CUDA_VISIBLE_DEVICES says which GPUs the runs take in turn"
        raise UserError(f"{path}: test.device", f"is {test.device}, and every run sees one GPU", remedy)
    if kind == "cuda" and (test.devices or 1) > 1:
        remedy = "Leave it out; --jobs runs several side by side"
        raise UserError(f"{path}: test.devices", f"is {test.devices}, and every run sees one GPU", remedy)


def new_configuration(path: Path, run: Run) -> Any:
    """Returns the configuration of a run as in a new folder of its own, on one device, as the run will see it.

    Raises:
        UserError: if `fit` would refuse it.
    """
    elsewhere = replace(run, folder=run.folder / "new", fit=(*run.fit, "--trainer.devices", "1"))
    try:
        return checked_configuration(elsewhere.fit_arguments())
    except UserError as error:
        problems: list[UserError] = getattr(error, "problems", [error])
        raise SeveralUserErrors(
            [UserError(f"{path}: {run.method}: {each.where}", each.problem, each.remedy) for each in problems]
        ) from error


def check_snapshots(path: Path, run: Run, config: Any) -> None:
    """Refuses a curve of runs that keep no snapshots.

    Args:
        path: path of the file that describes the runs, for the message.
        run: one of them.
        config: its configuration.

    Raises:
        UserError: if `test` is asked for what `fit` does not keep.
    """
    if run.test.curve_pictures and not config.snapshots.steps:
        problem = f"is {run.test.curve_pictures}, and the runs of {run.method} keep no snapshots"
        raise UserError(f"{path}: test.curve_pictures", problem, "Write snapshots.steps: [50, 100] under fit")


def check_goes_on(run: Run, settings: dict[str, Any]) -> None:
    """Refuses to go on with a run that was begun with other settings or concepts.

    Args:
        run: may be a new one.
        settings: settings that a continued run must share, but for its seed.

    Raises:
        UserError: naming every difference.
    """
    folder, path = RunFolder(run.folder), Path(run.sequence)
    if folder.config.exists() and path.exists():
        # How many devices there are, and which kind, the run finds out by itself: it may see others than we do.
        open_ones = (*DEVICES, *((ACCELERATOR,) if settings.get(ACCELERATOR) == "auto" else ()))
        check_unchanged(folder, {**settings, **dict.fromkeys(SEEDS, run.seed)}, Sequence.read(path), open_ones)
