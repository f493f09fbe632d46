"""Processes that end when this one is told to end, so that none goes on alone and what they do can be continued."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Windows has neither of the last two.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
IMPATIENT = 2.0
"""Seconds after which another Ctrl-C means that the processes shall end at once."""


class Process(Protocol):
    """What is asked of a process: that of `subprocess.Popen`."""

    pid: int

    def terminate(self) -> None:
        """Asks it to stop."""

    def kill(self) -> None:
        """Ends it at once."""

    def wait(self) -> int:
        """Waits for its end and returns its exit code."""
        ...


class ChildProcesses:
    """Starts processes; a signal that asks this process to stop is handed on to them.

    They have sessions of their own: a Ctrl-C of the terminal reaches this process alone, which then tells each of them
    once, since a second signal would make a run leave without saving. One that this process ignores, as SIGHUP under
    nohup, is left alone.

    Args:
        say: called with a line when a signal arrives.

    Attributes:
        is_stopping: a signal has come; nothing new is started.
        is_cut_off: another Ctrl-C has come; what was running has not saved.
    """

    def __init__(self, say: Callable[[str], None] = lambda text: None) -> None:
        self.say = say
        self.is_stopping = self.is_cut_off = False
        self.since = 0.0
        self.running: set[Process] = set()
        self.lock = Lock()

    def run(self, command: Sequence[str], **keywords: Any) -> int | None:
        """Runs a command to its end and returns its exit code; None if it was not started because of a signal.

        Args:
            command: program and arguments.
            **keywords: keyword arguments of `subprocess.Popen`.
        """
        return self.follow(lambda: subprocess.Popen(command, start_new_session=True, **keywords))

    def follow(self, start: Callable[[], Process]) -> int | None:
        """Starts a process, waits for its end and returns its exit code; None if it was not started.

        Args:
            start: starts it, in a session of its own.
        """
        with self.lock:
            if self.is_stopping:
                return None
            process = start()
            self.running.add(process)
        if self.is_stopping:  # it came while the process was being started
            process.terminate()
        try:
            return process.wait()
        finally:
            self.running.discard(process)

    @contextmanager
    def told_to_stop(self) -> Iterator[None]:
        """Hands signals on while it lasts; for the main thread, around all that waits for the processes."""
        before = {each: signal.getsignal(each) for each in SIGNALS}
        caught = [each for each, handler in before.items() if handler is not signal.SIG_IGN]
        for each in caught:
            signal.signal(each, self._hand_on)
        try:
            yield
        finally:
            for each in caught:
                signal.signal(each, before[each] or signal.SIG_DFL)

    def _hand_on(self, number: int, frame: object) -> None:
        running = list(self.running)
        if not self.is_stopping:
            self.is_stopping, self.since = True, time.monotonic()
            for process in running:
                with suppress(ProcessLookupError):
                    process.terminate()
            self.say(f"stopping; {len(running)} processes save what they have, Ctrl-C once more ends them at once")
        # A terminal that closes, or a scheduler, sends several in a row: a person is slower.
        elif number == signal.SIGINT and time.monotonic() - self.since > IMPATIENT:
            self.is_cut_off = True
            for process in running:
                with suppress(ProcessLookupError):
                    if hasattr(os, "killpg"):
                        os.killpg(process.pid, signal.SIGKILL)
                    else:
                        process.kill()
