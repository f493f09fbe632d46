"""The rows of ``metrics.csv``."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from cns_lightning.storage import write_atomically

COLUMNS = (
    "step", "stage", "concept", "stage_step", "loss", "penalty", "learning_rate", "token_learning_rate",
    "fixed_noise_loss",
)  # fmt: skip


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads the rows; none where there is no file. A row that a kill cut short is left out."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Writes all rows anew, atomically; raises what `write_atomically` raises.

    Rows of earlier versions lack columns, which stay empty.
    """
    write_atomically(path, _as_text([COLUMNS, *(tuple(row.get(name, "") for name in COLUMNS) for row in rows)]))


def append_row(path: Path, row: tuple[Any, ...]) -> None:
    """Appends one row and syncs it."""
    with path.open("ab") as file:
        file.write(_as_text([row]))
        file.flush()
        os.fsync(file.fileno())


def _as_text(rows: list[tuple[Any, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
