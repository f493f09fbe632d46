"""``compare``: several methods on the same sequences, seeds and prompts, and a table of quality and cost."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from cns_lightning.cli.arguments import at_least, path_argument
from cns_lightning.cli.main import call
from cns_lightning.errors import EXIT_DONE
from cns_lightning.progress import ProgressDisplay

if TYPE_CHECKING:
    from cns_lightning.experiments.comparison import Run

_EXPLANATION = """\
Every run is a folder of its own below DIR; called again, it goes on where it stopped. DIR/table.csv has one row per
method, DIR/runs.csv one row per run, DIR/differences.csv how far CNS is ahead of each other method, DIR/kinds.csv one
row per kind of concept, DIR/same_class.csv one row for each two concepts of one class, DIR/confusion.csv what pictures
of a concept are taken for; docs/experiments.md names the columns.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning compare",
        description="Learns the same sequences with several methods, scores them alike, and writes a table.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--config", type=path_argument, required=True, metavar="FILE", help="what is compared")
    options.add_argument("--out", type=path_argument, required=True, metavar="DIR", help="folder of everything")
    options.add_argument(
        "--set",
        action="append",
        dest="sets",
        metavar="FILE",
        help="a sequence file, in place of the sets in the config",
    )
    options.add_argument(
        "--jobs", type=at_least(1), default=0, metavar="N", help="runs side by side (one a GPU, or one a core)"
    )
    options.add_argument(
        "--print_config", action="store_true", help="print what every method is run with, whole, and run nothing"
    )
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if the configuration or a sequence is wrong, or files cannot be written.
        RunStopped: if a run failed.
    """
    arguments = parser().parse_args(argv)
    # Here, so that --help does not wait for torch.
    from cns_lightning.experiments.comparison import Comparison, runs_of, write_alone_sequences
    from cns_lightning.experiments.execution import carry_out, places_of
    from cns_lightning.experiments.preflight import check
    from cns_lightning.experiments.results import write_results
    from cns_lightning.runs.folder import make_folder

    comparison, out = Comparison.read(arguments.config), arguments.out.absolute()
    if arguments.sets:
        comparison = replace(comparison, sets=tuple(arguments.sets))
    runs = runs_of(comparison, out)
    if arguments.print_config:
        return print_configurations(runs)
    check(arguments.config, runs)
    make_folder(out, f"--out {out}")
    write_alone_sequences(comparison, out)
    display = ProgressDisplay(out / "log.txt")
    display.event(f"{len(runs)} runs below {out}")
    carry_out(runs, places_of(arguments.jobs), display.event)
    command = " ".join(["python -m cns_lightning compare", *map(shlex.quote, argv)])
    sys.stdout.write(write_results(runs, out, command, arguments.config.read_text("utf-8-sig")))
    display.event(f"wrote {out / 'table.csv'} and beside it other tables (*.csv, table.md) and pictures (*.png)")
    display.event(f"report: {out / 'report.html'}")
    return EXIT_DONE


def print_configurations(runs: list[Run]) -> int:
    """Prints the configuration of every method's first run, a YAML document each; returns the exit code."""
    first = {run.method: run for run in reversed(runs)}
    for method in dict.fromkeys(run.method for run in runs):
        sys.stdout.write(f"---\n# {method}: {first[method].folder}\n")
        with suppress(SystemExit):  # the parser's way to end after it has printed
            call("fit", [*first[method].fit_arguments(), "--print_config"])
    return EXIT_DONE
