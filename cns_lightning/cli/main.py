"""The table of commands; a command's module is imported when it is called, so that help answers at once."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import signal
import sys

from cns_lightning.cli.help import FIT_HELP
from cns_lightning.errors import EXIT_DONE, EXIT_ERROR, EXIT_USER_ERROR, RunStopped, UserError

PROGRAM = "cns-lightning"
COMMANDS = {
    "demo": ("cns_lightning.cli.demo", "learn seven concepts on the model that ships, and draw with them"),
    "init": ("cns_lightning.cli.init", "write a sequence file for folders of pictures"),
    "doctor": ("cns_lightning.cli.doctor", "what would stop or spoil a fit, before it starts"),
    "fit": ("cns_lightning.cli.fit", "learn a sequence of concepts, or continue"),
    "test": ("cns_lightning.cli.test", "draw every evaluation prompt and score the pictures"),
    "generate": ("cns_lightning.cli.generate", "draw pictures from a learned model"),
    "ui": ("cns_lightning.cli.ui", "a page that draws: prompts, boxes, strengths, stages"),
    "concepts": ("cns_lightning.cli.concepts", "list what was learned, undo, verify"),
    "analyze": ("cns_lightning.cli.analyze", "what concepts move, have in common and leave free"),
    "report": ("cns_lightning.cli.report", "one page: what was learned, and whether earlier concepts are still there"),
    "export": ("cns_lightning.cli.export", "what was learned, for ComfyUI, A1111, InvokeAI, diffusers or peft"),
    "compare": ("cns_lightning.cli.compare", "several methods on the same sequences: a table of quality and cost"),
    "search": ("cns_lightning.cli.search", "try settings of several methods, as many of each"),
    "launch": ("cns_lightning.cli.launch", "run fit as a job of SLURM, or an array of them"),
    "completion": ("cns_lightning.cli.completion", "print the script with which a shell completes these commands"),
}


def overview() -> str:
    """Returns the help text of the program."""
    lines = [f"  {name:<11} {said}" for name, (_, said) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m cns_lightning COMMAND [...]",
            "",
            "Teach one text-to-image model a sequence of personal concepts.",
            "",
            "commands:",
            *lines,
            "",
            "python -m cns_lightning COMMAND --help tells more; --version tells the version",
        ]
    )


def hold_back_warning() -> None:
    """Lets a job's warning of its time limit wait until the run can answer; at first it would end the process."""
    if "SLURM_JOB_ID" in os.environ:  # never on Windows, which has no such signal
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0 done, 2 the user's input is wrong, anything else a fault of ours."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview() + "\n")
        return EXIT_DONE
    if arguments[0] == "--version":
        from importlib.metadata import version

        sys.stdout.write(version(PROGRAM) + "\n")
        return EXIT_DONE
    command, rest = arguments[0], arguments[1:]
    try:
        return call(command, rest)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USER_ERROR
    except RunStopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        return EXIT_ERROR
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        remedy = "Free some space and run the same command again; what was there before is intact"
        sys.stderr.write(f"{UserError(error.filename or command, 'the disk is full', remedy)}\n")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 130


def call(command: str, rest: list[str]) -> int:
    """Imports a command, runs it and gives its exit code.

    Raises:
        UserError: if there is no such command, or the command refuses what it is given.
    """
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        remedy = f"Did you mean {near[0]}" if near else f"Use one of {', '.join(COMMANDS)}"
        raise UserError(command, "is not a command", remedy)
    if command == "fit" and any(argument in ("-h", "--help") for argument in rest):
        sys.stdout.write(FIT_HELP)
        return EXIT_DONE
    if command == "fit":
        hold_back_warning()
    if any(word.startswith(("--config", "-c")) for word in rest):
        # Here, so that help imports nothing.
        from cns_lightning.user_files import with_shipped_configs

        rest = with_shipped_configs(rest)
    from cns_lightning.cli.collection import collection_held_back
    from cns_lightning.diffusion.allocator import keep_freed_memory

    keep_freed_memory()
    with collection_held_back():
        module = importlib.import_module(COMMANDS[command][0])
    return module.run(rest)
