"""A process that has imported everything and forks one child for every command: a run starts at once.

``python -m cns_lightning.experiments.warm_process`` reads one JSON line a command, ``words`` (of a command line),
``environment`` (what differs) and ``output`` (file that gets what it prints), answers with the child's ``pid``, and,
when it has ended, with its ``code``. Every run still has a process of its own: its peak memory is its own, and nothing
of one run can leak into the next. On Linux alone; elsewhere a fork of a process with threads of its libraries is not
safe.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "cns_lightning"]
"""With what the commands begin that can be carried out so."""
IS_POSSIBLE = sys.platform == "linux"
NEEDED = (
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "transformers.models.clip.modeling_clip",
    "cns_lightning.configuration.parser", "cns_lightning.evaluation.evaluate",
)  # fmt: skip
"""Imports of every run that take long; they must start no thread."""


class ForkedRun:
    """A command that a `WarmProcess` carries out, with what `ChildProcesses` asks of a process.

    Attributes:
        pid: process.
    """

    def __init__(self, server: subprocess.Popen[bytes], pid: int) -> None:
        self.server, self.pid = server, pid

    def terminate(self) -> None:
        """Asks it to stop."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Waits for its end and returns its exit code, negative for a signal."""
        return _answer(self.server)["code"]


class WarmProcess:
    """Starts the process, and commands in it, one after another.

    Args:
        environment: environment of the commands.
        output: file that gets what libraries print while they are imported.
    """

    def __init__(self, environment: dict[str, str], output: Path) -> None:
        command = [sys.executable, "-m", "cns_lightning.experiments.warm_process"]
        with output.open("ab") as file:
            # A session of its own: a signal of the terminal shall reach the program that hands it on, alone.
            self.server = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def start(self, words: list[str], output: Path) -> ForkedRun:
        """Starts a command.

        Args:
            words: after ``python -m cns_lightning``.
            output: file that gets what it prints, behind what is there.
        """
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps({"words": words, "output": str(output)}).encode() + b"\n")
        self.server.stdin.flush()
        return ForkedRun(self.server, _answer(self.server)["pid"])

    def close(self) -> None:
        """Ends the process."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()


def _answer(server: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise OSError(f"the process that starts runs ended with {server.wait()}")
    return json.loads(line)


def _carry_out(words: list[str], output: str) -> int:
    """Runs a command in a child: prints go to a file, the session is its own."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for ours, theirs in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(ours, theirs)
    from cns_lightning.cli.main import main

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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in NEEDED:
        importlib.import_module(name)
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os._exit(_carry_out(asked["words"], asked["output"]))
        sys.stdout.write(json.dumps({"pid": pid}) + "\n")
        sys.stdout.flush()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
