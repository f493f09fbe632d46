"""``report``: one page that shows what a run has learned, and whether earlier concepts were forgotten."""

from __future__ import annotations

import argparse
import sys

from cns_lightning.cli.arguments import path_argument
from cns_lightning.errors import EXIT_DONE
from cns_lightning.runs.folder import RunFolder


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning report",
        description="Writes report.html of a run: one file with everything inside, for any browser, without a network.",
    )
    options.add_argument("--run", type=path_argument, required=True, metavar="DIR", help="run folder")
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if the folder holds no run, or files are damaged.
    """
    arguments = parser().parse_args(argv)
    folder = RunFolder.existing(arguments.run)
    # Here, so that --help does not wait for torch.
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.report.report import what_next, write_report

    write_report(folder)
    sys.stdout.write(f"{what_next(folder, NeuronRegistry.load(folder.registry))}\n")
    return EXIT_DONE
