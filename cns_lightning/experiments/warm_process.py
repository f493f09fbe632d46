"""A process that has imported everything and forks one child for every command: a run starts at once.

Every run still has a process of its own: its peak memory is its own, and nothing of one run can leak into the next. On
Linux alone; elsewhere a fork of a process with threads of its libraries is not safe. The other half is `cli.warm`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "cns_lightning"]
"""With what the commands begin that can be carried out so."""
IS_POSSIBLE = sys.platform == "linux"


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
        command = [sys.executable, "-m", "cns_lightning.cli.warm"]
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
        """Ends the process, if it has not ended by itself."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        for pipe in (self.server.stdin, self.server.stdout):
            with suppress(OSError):  # what could not be written to a process that is gone
                pipe.close()
        self.server.wait()


def _answer(server: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert server.stdout is not None
    line = server.stdout.readline()
    if not line:
        raise OSError(f"the process that starts runs ended with {server.wait()}")
    return json.loads(line)
