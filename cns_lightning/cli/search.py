"""``search``: tries settings of several methods, as many of each, and says which is best."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_lightning.cli.arguments import at_least, path_argument
from cns_lightning.errors import EXIT_DONE
from cns_lightning.progress import ProgressDisplay

if TYPE_CHECKING:
    from cns_lightning.experiments.comparison import Run
    from cns_lightning.experiments.search import Search

_EXPLANATION = """\
Every setting is a run folder below DIR; called again, the search goes on where it stopped. DIR/search.csv has a row a
setting, DIR/best/METHOD.yaml the best setting, to be stacked on the method's files. docs/experiments.md has the rule.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning search",
        description="Tries settings of several methods, as many of each, and says which is best.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--config", type=path_argument, required=True, metavar="FILE", help="what is tried")
    options.add_argument("--out", type=path_argument, required=True, metavar="DIR", help="folder of everything")
    options.add_argument(
        "--jobs", type=at_least(1), default=0, metavar="N", help="runs side by side (one a GPU, or one a core)"
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
    from cns_lightning.experiments.execution import carry_out, places_of
    from cns_lightning.experiments.preflight import check
    from cns_lightning.experiments.search import Search, runs_of, widened
    from cns_lightning.runs.folder import make_folder

    search, out = Search.read(arguments.config), arguments.out.absolute()
    runs = runs_of(search, out)
    check(arguments.config, [run for _, run in runs])
    make_folder(out, f"--out {out}")
    display = ProgressDisplay(out / "log.txt")
    new, starts = runs, None
    while True:
        display.event(f"{len(new)} runs below {out}")
        carry_out([run for _, run in new], places_of(arguments.jobs), display.event)
        # Once: a set's first run stays the same, and so does what the class word is drawn like.
        starts = starts or starts_of(runs, out)
        rows, text = write_results(search, runs, starts, out)
        wider = widened(search, rows)
        if wider is None:
            break
        new = runs_of(wider, out, search.ends[-1])
        check(arguments.config, [run for _, run in new])
        search, runs = wider, [*runs, *new]
        display.event(f"round {len(search.ends) - 1}: {search.ends[-1]} settings of every method")
    sys.stdout.write(text)
    display.event(f"wrote {out / 'search.csv'} and {out / 'best'}")
    return EXIT_DONE


def starts_of(runs: list[tuple[int, Run]], out: Path) -> dict[str, Any] | None:
    """Returns where the curves of each set start, the class word's figures; None where runs have no curves."""
    from cns_lightning.experiments.bounds import bounds_of
    from cns_lightning.experiments.search import has_curves

    if not has_curves(runs):
        return None
    names = dict.fromkeys(run.set_name for _, run in runs)
    return {name: bounds_of(name, [run for _, run in runs], out)[0]["curve_start"] for name in names}


def write_results(
    search: Search, runs: list[tuple[int, Run]], starts: dict[str, Any] | None, out: Path
) -> tuple[list[dict[str, Any]], str]:
    """Writes the tables and the best settings so far; returns the rows, and the table as text.

    Args:
        search: finished search.
        runs: finished ones, each with the number of its setting.
        starts: figures of the class word, from `starts_of`.
        out: folder of everything.

    Raises:
        UserError: if files cannot be written.
    """
    from cns_lightning.experiments.search import BEST, as_text, as_yaml, best_of, rows_of
    from cns_lightning.storage import csv_bytes, write_atomically

    rows = rows_of(search, runs, starts)
    text = as_text(rows, starts is not None)
    write_atomically(out / "search.csv", csv_bytes(rows))
    write_atomically(out / "search.md", text.encode())
    for method, setting in best_of(search, rows).items():
        write_atomically(out / BEST / f"{method}.yaml", as_yaml(setting))
    return rows, text
