"""``python -m cns_lightning.cli.warm``: imports everything, then forks one child for every command it is told.

It reads one JSON line a command, ``words`` of a command line and the ``output`` file that gets what it prints, answers
with the child's ``pid``, and, when it has ended, with its ``code``; see `experiments.warm_process`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any

from cns_lightning.cli.collection import collection_held_back
from cns_lightning.cli.main import main
from cns_lightning.experiments.child_processes import SIGNALS

NEEDED = (
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "transformers.models.clip.modeling_clip",
    "cns_lightning.configuration.parser", "cns_lightning.evaluation.evaluate",
)  # fmt: skip
"""Imports of every run that take long; they must start no thread."""


def _carry_out(words: list[str], output: str, handlers: dict[signal.Signals, Any]) -> int:
    """Runs a command in a child: prints go to a file, the session is its own, signals do what they usually do."""
    os.setsid()
    for number, handler in {**handlers, signal.SIGINT: signal.default_int_handler}.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(ours, theirs)
    try:
        return main(words)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - it must not unwind into the process that forks
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def serve() -> None:
    """Imports what every run needs, then forks a child for every line that comes."""
    # SLURM, or whoever stops a whole group, signals every process; this one goes when its commands are done.
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    with collection_held_back():
        for name in NEEDED:
            importlib.import_module(name)
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        # Held back, or one that comes before the child listens would be lost, and it would never stop.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            os._exit(_carry_out(asked["words"], asked["output"], handlers))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        sys.stdout.write(json.dumps({"pid": pid}) + "\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
