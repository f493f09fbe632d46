"""Processes that end when this one is told to end, so that none goes on alone and what they do can be continued."""

from __future__ import annotations

import signal
import subprocess
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class ChildProcesses:
    """Starts processes; a signal that asks this process to stop is handed on to them.

    They have sessions of their own: a Ctrl-C of the terminal reaches this process alone, which then tells each of them
    once, since a second signal would make a run leave without saving.

    Attributes:
        is_stopping: a signal has come; nothing new is started.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self.running: set[subprocess.Popen[Any]] = set()
        self.lock = Lock()

    def run(self, command: Sequence[str], **keywords: Any) -> int | None:
        """Runs a command to its end and gives its exit code; None if it was not started because of a signal.

        Args:
            command: program and arguments.
            **keywords: of `subprocess.Popen`.
        """
        with self.lock:
            if self.is_stopping:
                return None
            process: subprocess.Popen[Any] = subprocess.Popen(command, start_new_session=True, **keywords)
            self.running.add(process)
        if self.is_stopping:  # it came while the process was being started
            process.terminate()
        try:
            return process.wait()
        finally:
            self.running.discard(process)

    @contextmanager
    def told_to_stop(self) -> Iterator[None]:
        """Hands signals on while it lasts; for the main thread."""

        def hand_on(number: int, frame: object) -> None:
            again, self.is_stopping = self.is_stopping, True
            for process in list(self.running):
                (process.kill if again else process.terminate)()

        before = {each: signal.signal(each, hand_on) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler or signal.SIG_DFL)
