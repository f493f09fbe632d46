"""``demo``: learns seven concepts on the model that ships, lists them and draws with them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cns_lightning.cli.arguments import at_least, path_argument
from cns_lightning.cli.main import call
from cns_lightning.errors import EXIT_DONE
from cns_lightning.user_files import command_line, configs_folder

CONFIG = "experiments/demo.yaml"
USUAL_RUN = Path("runs", "demo")
PROMPT = "a <new1> bird next to a <new3> rabbit"
PICTURES = 4

_EXPLANATION = """\
It needs no network, no GPU and no files but those of the package. Stopped, it goes on with the same command. Other
words are those of fit: demo --samples.pictures 2 draws smaller sheets.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's own arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning demo",
        description="Learns seven concepts on the model that ships with the project, and draws two of them together.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument(
        "--run", type=path_argument, default=USUAL_RUN, metavar="DIR", help=f"run folder ({USUAL_RUN.as_posix()})"
    )
    options.add_argument("--steps", type=at_least(1), metavar="N", help="optimizer steps of every concept (250)")
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if the run folder holds another run, or files cannot be written.
    """
    arguments, rest = parser().parse_known_args(argv)
    folder = arguments.run
    steps = ["--steps", str(arguments.steps)] if arguments.steps else []
    new = folder / "generated.png"
    drawing = ["--run", str(folder), "--prompt", PROMPT, "--n", str(PICTURES), "--out", str(new)]
    for command, words in (
        ("fit", ["--config", str(configs_folder() / CONFIG), "--run", str(folder), *steps, *rest]),
        ("concepts", ["--run", str(folder)]),
        ("generate", drawing),
    ):
        code = call(command, words)
        if code != EXIT_DONE:
            return code
    again = command_line(["generate", "--run", str(folder), "--prompt", PROMPT])
    sys.stdout.write(f"next: {again}\nnew pictures: {new}\nreport: {folder / 'report.html'}\n")
    return EXIT_DONE
