"""``compare``: several methods on the same sequences, seeds and prompts, and a table of quality and cost."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_lightning.cli.arguments import at_least, path_argument
from cns_lightning.errors import EXIT_DONE, SeveralUserErrors, UserError
from cns_lightning.progress import ProgressDisplay

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cns_lightning.experiments.comparison import Run

DEVICES, ACCELERATOR = ("trainer.devices", "trainer.strategy"), "trainer.accelerator"
SEEDS = ("seed_everything", "model.seed", "data.seed")
_EXPLANATION = """\
Every run is a folder of its own below DIR; called again, it goes on where it stopped. DIR/table.csv has a row a method,
DIR/runs.csv a row a run, DIR/kinds.csv a row a kind of concept, DIR/same_class.csv a row two concepts of one class,
DIR/confusion.csv what pictures of a concept are taken for; docs/comparison.md names the columns.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="python -m cns_lightning compare",
        description="Learns the same sequences with several methods, scores them alike, and writes a table.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config", type=path_argument, required=True, metavar="FILE", help="what is compared")
    made.add_argument("--out", type=path_argument, required=True, metavar="DIR", help="folder of everything")
    made.add_argument(
        "--set",
        action="append",
        dest="sets",
        metavar="FILE",
        help="a sequence file, in place of the sets in the config",
    )
    made.add_argument(
        "--jobs", type=at_least(1), default=0, metavar="N", help="runs side by side (one a GPU, or one a core)"
    )
    return made


def run(argv: list[str]) -> int:
    """Runs the command and gives the exit code.

    Raises:
        UserError: if the configuration or a sequence is wrong, or files cannot be written.
        RunStopped: if a run failed.
    """
    arguments = parser().parse_args(argv)
    # Here, so that --help does not wait for torch.
    from cns_lightning.experiments.comparison import Comparison, carry_out, runs_of, write_alone_sequences
    from cns_lightning.runs.folder import make_folder

    comparison, out = Comparison.read(arguments.config), arguments.out.absolute()
    if arguments.sets:
        comparison = replace(comparison, sets=tuple(arguments.sets))
    runs = runs_of(comparison, out)
    check(arguments.config, runs)
    make_folder(out, f"--out {out}")
    write_alone_sequences(comparison, out)
    display = ProgressDisplay(out / "log.txt")
    display.event(f"{len(runs)} runs below {out}")
    carry_out(runs, places_of(arguments.jobs), display.event)
    sys.stdout.write(write_results(runs, out))
    display.event(f"wrote {out / 'table.csv'} and beside it other tables (*.csv, table.md) and pictures (*.png)")
    return EXIT_DONE


def write_results(runs: list[Run], out: Path) -> str:
    """Scores the bounds and writes all tables and pictures of a comparison; returns the table in Markdown."""
    from cns_lightning.experiments import curves as compare_curves
    from cns_lightning.experiments import table as table
    from cns_lightning.experiments.figures import curves_as_csv, curves_by_method, draw_curves, draw_table
    from cns_lightning.storage import write_atomically

    bounds = {name: bounds_of(name, runs, out) for name in dict.fromkeys(run.set_name for run in runs)}
    bound = {name: class_word for name, (class_word, _) in bounds.items()}
    by_run = compare_curves.with_headline(table.rows_by_run(runs), runs, bound)
    write_atomically(out / "runs.csv", table.as_csv(by_run, table.RUN_COLUMNS))
    write_atomically(out / "kinds.csv", table.as_csv(table.rows_by_kind(runs, bound.items()), table.KIND_COLUMNS))
    write_atomically(
        out / "same_class.csv", table.as_csv(table.rows_within_class(runs, bound.items()), table.SAME_CLASS_COLUMNS)
    )
    write_confusion(table.rows_of_confusion(runs, bound.items()), out)
    in_words = [scores for _, scores in bounds.values() if scores is not None]
    rows = table.rows_of(by_run, list(bound.values()), in_words)
    text = table.as_markdown(rows)
    write_atomically(out / "table.csv", table.as_csv(rows))
    write_atomically(out / "table.md", text.encode())
    write_atomically(out / "table.png", draw_table(rows))
    compare_curves.write_curves(runs, bound, out)
    curves = curves_by_method(runs)
    write_atomically(out / "forgetting.csv", curves_as_csv(curves))
    if curves:
        write_atomically(out / "forgetting.png", draw_curves(curves))
    else:  # of an earlier call, with other settings of `test`
        (out / "forgetting.png").unlink(missing_ok=True)
    write_grids(runs, out)
    return text


def check(path: Path, runs: Iterable[Run]) -> None:
    """Sees before anything is learned whether `fit` and `test` will take what they are given.

    Args:
        path: of the file that describes the runs, for the message.
        runs: all of them.

    Raises:
        UserError: naming all faults of the first run that would be refused.
    """
    from cns_lightning.configuration.continuation import comparable
    from cns_lightning.evaluation.judges import clip_encoder, dino_encoder, judge_of

    judges: set[tuple[str, str | None]] = set()
    parsed: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, Any]] = {}
    for run in runs:
        stack = (run.files, run.fit)
        # Sets and seeds change nothing that could be refused in a new folder.
        if stack not in parsed:
            config, asked = new_configuration(path, run), arguments_of_test(path, run)
            parsed[stack] = comparable(config)
            check_snapshots(path, run, config, asked)
            judges.add((asked.judge or judge_of(str(config.model.base_model)), asked.dino))
        check_goes_on(run, parsed[stack])
    for judge, dino in judges:
        clip_encoder(judge, "cpu", f"{path}: test: --judge")
        dino_encoder(dino, "cpu", f"{path}: test: --dino")


def new_configuration(path: Path, run: Run) -> Any:
    """Gives the configuration of a run as in a new folder of its own, on one device, as the run will see it.

    Raises:
        UserError: if `fit` would refuse it.
    """
    from cns_lightning.configuration.parser import checked_configuration

    elsewhere = replace(run, folder=run.folder / "new", fit=(*run.fit, "--trainer.devices", "1"))
    try:
        return checked_configuration(elsewhere.fit_arguments())
    except UserError as error:
        faults: list[UserError] = getattr(error, "faults", [error])
        raise SeveralUserErrors(
            [UserError(f"{path}: {run.method}: {each.where}", each.problem, each.remedy) for each in faults]
        ) from error


def arguments_of_test(path: Path, run: Run) -> argparse.Namespace:
    """Gives what `test` is asked; raises UserError if it does not know it."""
    from cns_lightning.cli.test import parser as test_parser

    try:
        asked, unknown = test_parser(exit_on_error=False).parse_known_args(run.test_arguments())
    except argparse.ArgumentError as error:
        raise UserError(f"{path}: test", str(error), "See python -m cns_lightning test --help") from error
    if unknown:
        problem = f"has {' '.join(unknown)}, which test does not know"
        raise UserError(f"{path}: test", problem, "See python -m cns_lightning test --help")
    return asked


def check_snapshots(path: Path, run: Run, config: Any, asked: argparse.Namespace) -> None:
    """Refuses a curve of runs that keep no snapshots.

    Args:
        path: of the file that describes the runs, for the message.
        run: one of them.
        config: its configuration.
        asked: of `test`.

    Raises:
        UserError: if `test` is asked for what `fit` does not keep.
    """
    if asked.curve_pictures and not config.snapshots.steps:
        problem = f"has --curve-pictures {asked.curve_pictures}, and the runs of {run.method} keep no snapshots"
        raise UserError(f"{path}: test", problem, 'Write --snapshots.steps, "[50, 100]" under fit')


def check_goes_on(run: Run, settings: dict[str, Any]) -> None:
    """Refuses to go on with a run that was begun with other settings or concepts.

    Args:
        run: may be a new one.
        settings: that a continued run must share, but for its seed.

    Raises:
        UserError: naming every difference.
    """
    from cns_lightning.configuration.continuation import check_unchanged
    from cns_lightning.runs.folder import RunFolder
    from cns_lightning.sequences.sequence import Sequence

    folder, path = RunFolder(run.folder), Path(run.sequence)
    if folder.config.exists() and path.exists():
        # How many devices there are, and which kind, the run finds out by itself: it may see others than we do.
        open_ones = (*DEVICES, *((ACCELERATOR,) if settings.get(ACCELERATOR) == "auto" else ()))
        check_unchanged(folder, {**settings, **dict.fromkeys(SEEDS, run.seed)}, Sequence.read(path), open_ones)


def places_of(jobs: int) -> list[dict[str, str]]:
    """Gives the environment of each of the runs side by side on this machine."""
    import torch

    from cns_lightning.experiments.comparison import environments

    # Those lent to this process; a job on a cluster has fewer than the machine.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return environments(jobs, torch.cuda.device_count(), cores, os.environ)


def write_confusion(rows: list[dict[str, Any]], out: Path) -> None:
    """Writes what pictures of concepts are taken for: a table, and a sheet of heat maps for each set."""
    from cns_lightning.experiments.figures import draw_confusion
    from cns_lightning.experiments.table import CONFUSION_COLUMNS, as_csv
    from cns_lightning.storage import write_atomically

    write_atomically(out / "confusion.csv", as_csv(rows, CONFUSION_COLUMNS))
    for name in dict.fromkeys(row["set"] for row in rows):
        drawn = draw_confusion([row for row in rows if row["set"] == name])
        write_atomically(out / f"confusion-{name}.png", drawn)


def write_grids(runs: list[Run], out: Path) -> None:
    """Draws one sheet a set, of its first seed."""
    import io

    from cns_lightning.experiments.comparison import CLASS_WORD_FOLDER, IN_WORDS_FOLDER
    from cns_lightning.experiments.figures import draw_grid
    from cns_lightning.storage import write_atomically

    for name in dict.fromkeys(run.set_name for run in runs):
        of_set = [run for run in runs if run.set_name == name]
        in_words = out / IN_WORDS_FOLDER / name / "images"
        sheet = draw_grid(
            [run for run in of_set if run.seed == of_set[0].seed],
            out / CLASS_WORD_FOLDER / name / "images",
            in_words if in_words.is_dir() else None,
        )
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        write_atomically(out / f"grid-{name}.png", buffer.getvalue())


def bounds_of(name: str, runs: list[Run], out: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Scores what the base model draws for one set without learning, with the settings of the set's first run.

    Returns:
        The scores of the class words; those of the descriptions, or None where a concept of the set has none.
    """
    from cns_lightning.cli.generate import available_device
    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.evaluation.anchors import base_model_scores
    from cns_lightning.evaluation.evaluate import Settings
    from cns_lightning.evaluation.judges import clip_encoder, dino_encoder
    from cns_lightning.experiments.comparison import ALONE, CLASS_WORD_FOLDER, IN_WORDS_FOLDER
    from cns_lightning.experiments.table import scores_of
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.runs.config import RunConfig
    from cns_lightning.runs.folder import RunFolder
    from cns_lightning.sequences.sequence import Sequence
    from cns_lightning.storage import read_json, write_json

    own = [run for run in runs if run.set_name == name and run.method != ALONE]
    first, folder = own[0], RunFolder(own[0].folder)
    known = read_json(folder.evaluation / "scores.json")
    curve_pictures = max(scores_of(run).get("curve_pictures", 0) for run in own)
    settings = Settings(
        pictures=known["pictures"],
        steps=known["steps"],
        guidance=known["guidance"],
        look_alikes=known["look_alikes"],
        templates=RunConfig.read(folder).templates,
    )
    device, place = available_device(None), out / CLASS_WORD_FOLDER / name
    place_in_words = out / IN_WORDS_FOLDER / name
    base = BaseModel.load(NeuronRegistry.load(folder.registry).base_model)
    base.to(device=device)
    sequence, judge = Sequence.read(Path(first.sequence)), clip_encoder(known["judge"], device)
    dino = dino_encoder(known["dino"], device)
    scores = base_model_scores(place / "images", sequence, base, settings, judge, dino, curve_pictures)
    write_json(place / "scores.json", scores)
    if not all(concept.description for concept in sequence.concepts):
        return scores, None
    in_words = base_model_scores(place_in_words / "images", sequence, base, settings, judge, dino, in_words=True)
    write_json(place_in_words / "scores.json", in_words)
    return scores, in_words
