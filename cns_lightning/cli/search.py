"""``search``: tries settings of several methods, as many of each, and says which is best."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cns_lightning.cli.arguments import at_least
from cns_lightning.errors import EXIT_DONE
from cns_lightning.progress import ProgressDisplay

_EXPLANATION = """\
Every setting is a run folder below DIR; called again, the search goes on where it stopped. DIR/search.csv has a row a
setting, DIR/best/METHOD.yaml the best setting, to be stacked on the method's files. docs/comparison.md has the rule.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    made = argparse.ArgumentParser(
        prog="python -m cns_lightning search",
        description="Tries settings of several methods, as many of each, and says which is best.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config", type=Path, required=True, metavar="FILE", help="what is tried")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of everything")
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
    from cns_lightning.cli.compare import check, places_of
    from cns_lightning.compare import carry_out
    from cns_lightning.run_folder import make_folder
    from cns_lightning.search import BEST, Search, as_csv, as_text, as_yaml, best_of, rows_of, runs_of
    from cns_lightning.storage import write_atomically

    search, out = Search.read(arguments.config), arguments.out.absolute()
    runs = runs_of(search, out)
    check(arguments.config, [run for _, run in runs])
    make_folder(out, f"--out {out}")
    display = ProgressDisplay(out / "log.txt")
    display.event(f"{len(runs)} runs below {out}")
    carry_out([run for _, run in runs], places_of(arguments.jobs), display.event)
    rows = rows_of(search, runs)
    write_atomically(out / "search.csv", as_csv(rows))
    write_atomically(out / "search.md", as_text(rows).encode())
    for method, setting in best_of(search, rows).items():
        write_atomically(out / BEST / f"{method}.yaml", as_yaml(setting))
    sys.stdout.write(as_text(rows))
    display.event(f"wrote {out / 'search.csv'} and {out / 'best'}")
    return EXIT_DONE
