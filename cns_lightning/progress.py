"""The one progress display: a live line on a terminal, plain lines elsewhere, and always plain lines in a log file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO


def as_clock(seconds: float) -> str:
    """Formats seconds as minutes:seconds or hours:minutes:seconds."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressDisplay:
    """Shows how a long job stands.

    Args:
        log: file that gets every plain line, with the time of day; None for none.
        seconds: at least this long between two plain lines about the same thing.
        stream: stream of the display; standard error when not given.
    """

    def __init__(self, log: Path | None = None, seconds: float = 10.0, stream: TextIO | None = None) -> None:
        self.log, self.seconds = log, seconds
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.last = -seconds
        self.width = 0

    def event(self, text: str) -> None:
        """Says something that shall stand in every log."""
        self._clear()
        self._plain(text)
        if self.live:
            self.stream.write(f"{text}\n")
            self.stream.flush()

    def status(self, text: str) -> None:
        """Says how things stand now; on a terminal the line replaces the one before."""
        now = time.monotonic()
        due = now - self.last >= self.seconds
        if due:
            self.last = now
            self._plain(text)
        if self.live:
            self.stream.write("\r" + text.ljust(self.width))
            self.stream.flush()
            self.width = len(text)

    def _clear(self) -> None:
        if self.live and self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.width = 0

    def _plain(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {text}\n"
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(line)
        if not self.live:
            self.stream.write(line)
            self.stream.flush()
