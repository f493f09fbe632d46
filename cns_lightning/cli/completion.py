"""``completion``: prints the script with which a shell completes commands, options and file names."""

from __future__ import annotations

import argparse
import importlib
import sys
from importlib.util import find_spec
from typing import Any

from cns_lightning.cli.main import COMMANDS, PROGRAM
from cns_lightning.errors import EXIT_DONE, UserError

SHELLS = ("bash", "zsh", "fish", "tcsh")
TAKE_WORDS_OF_FIT = ("fit", "doctor", "launch", "demo")
INSTALL = 'Install it: pip install "cns-lightning[completion]", or pip install shtab'
KINDS = {"FILE": "FILE", "DIR": "DIRECTORY", "PATH": "FILE"}
"""What shtab completes, by the placeholder in an option's help."""
FILES_OF_FIT = {"--config": "FILE", "-c": "FILE", "--data.sequence": "FILE", "--run": "DIRECTORY"}

_EXPLANATION = """\
  bash   cns-lightning completion bash > ~/.local/share/bash-completion/completions/cns-lightning
  zsh    cns-lightning completion zsh > DIR/_cns-lightning, where DIR is one of $fpath
  fish   cns-lightning completion fish > ~/.config/fish/completions/cns-lightning.fish

It completes cns-lightning, and knows the options of this version: print it again after an update.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning completion",
        description="Prints the script with which a shell completes commands, options and file names.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument("shell", choices=SHELLS, help="the shell")
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if shtab is not installed, or is too old for the shell.
    """
    arguments = parser().parse_args(argv)
    if find_spec("shtab") is None:
        raise UserError("completion", "the scripts are written by shtab, which is not installed", INSTALL)
    import shtab

    if arguments.shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(
            "completion", f"this version of shtab knows no {arguments.shell}", "Update it: pip install -U shtab"
        )
    sys.stdout.write(shtab.complete(whole_parser(), arguments.shell) + "\n")
    return EXIT_DONE


def whole_parser() -> argparse.ArgumentParser:
    """Makes one parser of all commands, to be read and not to parse with."""
    whole = argparse.ArgumentParser(prog=PROGRAM)
    commands = whole.add_subparsers()
    for name, (module, said) in COMMANDS.items():
        command = commands.add_parser(name, help=said)
        make = getattr(importlib.import_module(module), "parser", None)
        for action in make()._actions if make is not None else []:
            _add(command, action, KINDS.get(str(action.metavar)))
        for action in _actions_of_fit() if name in TAKE_WORDS_OF_FIT else []:
            _add(
                command,
                action,
                next((FILES_OF_FIT[each] for each in action.option_strings if each in FILES_OF_FIT), None),
            )
    return whole


def _actions_of_fit() -> list[argparse.Action]:
    from cns_lightning.configuration.parser import fit_parser

    return fit_parser()._actions


def _add(command: argparse.ArgumentParser, action: argparse.Action, kind: str | None) -> None:
    """Adds an option or argument as far as a shell can know it: its names, what may follow, its help."""
    import shtab

    known = command._option_string_actions
    names = [name for name in action.option_strings if name not in known]
    if (action.option_strings and not names) or action.help == argparse.SUPPRESS:
        return
    takes_value = action.nargs != 0
    words: dict[str, Any] = {"help": (action.help or "").replace("%", "%%").split("\n")[0] or None}
    if takes_value:
        words |= {"choices": list(action.choices) if action.choices else None, "nargs": action.nargs}
    else:
        words["action"] = "store_true"
    added = command.add_argument(*(names or [action.dest]), **words)
    if kind is not None and not action.choices:
        added.complete = getattr(shtab, kind)  # type: ignore[attr-defined]
