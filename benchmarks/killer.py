"""A callback that ends its process in the middle of a write, as a power cut would."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from cns_lightning import storage
from cns_lightning.callbacks import metrics_table
from cns_lightning.runs import metrics as metrics_file

PLAN = "KILL_DURING_WRITE"
"""Part of a file's name, which write to it (from 1), and when: a share of its bytes, ``rename`` or ``renamed``."""


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillDuringWrites(Callback):
    """Kills the process as the plan in the environment says; without a plan it does nothing."""

    def __init__(self) -> None:
        # Here, before anything is written; on rank 0, which alone writes.
        if PLAN in os.environ and os.environ.get("LOCAL_RANK", "0") == "0":
            name, count, moment = os.environ[PLAN].split(":")
            Watch(name, int(count), moment).take_over()


class Watch:
    """Counts the writes to a file and kills at one of them.

    Args:
        name: part of the file's name.
        count: which write, from 1.
        moment: share of the bytes after which to kill, ``rename`` for before the rename, ``renamed`` for after it.
    """

    def __init__(self, name: str, count: int, moment: str) -> None:
        self.name, self.left, self.moment = name, count, moment

    def is_now(self, path: Any) -> bool:
        """Returns whether this write is the one."""
        if self.name not in Path(path).name:
            return False
        self.left -= 1
        return self.left == 0

    def take_over(self) -> None:
        """Replaces the functions that write."""
        if self.moment in ("rename", "renamed"):
            self._watch_renames()
        elif self.name == "metrics":
            self._watch_rows()
        else:
            self._watch_files()

    def _watch_renames(self) -> None:
        replace = os.replace

        def watched(source: Any, target: Any) -> None:
            is_now = self.is_now(target)
            if is_now and self.moment == "rename":
                _end()
            replace(source, target)
            if is_now:
                _end()

        os.replace = watched  # type: ignore[assignment]

    def _watch_files(self) -> None:
        write = storage._write_synced

        def watched(path: Path, data: bytes) -> None:
            if self.is_now(path):
                write(path, data[: int(len(data) * float(self.moment))])
                _end()
            write(path, data)

        storage._write_synced = watched

    def _watch_rows(self) -> None:
        append = metrics_file.append_row

        def watched(path: Path, row: tuple[Any, ...]) -> None:
            if self.is_now(path):
                text = metrics_file._as_text([row])
                with path.open("ab") as file:
                    file.write(text[: int(len(text) * float(self.moment))])
                _end()
            append(path, row)

        metrics_table.append_row = watched
