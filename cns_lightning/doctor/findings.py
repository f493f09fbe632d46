"""What was found, how much it matters, and the table of it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from cns_lightning.errors import SeveralUserErrors, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LISTED = 4
"""File names that a row of the table names; of others it says how many they are."""
GAP = "  "


class Severity(Enum):
    """How much a finding matters: the headings of the table's parts."""

    STOPS = "Stops a fit"
    WARNING = "Worth a look"
    NOTE = "Nothing to do"


@dataclass(frozen=True)
class Finding:
    """One thing that a user may want to know before a run.

    Attributes:
        severity: whether `fit` would refuse it, a person should look, or nothing need be done.
        problem: what was found.
        where: file, folder or setting.
        remedy: what to do; of a note, what will be done.
        names: names of the files in the folder ``where`` that it is about.
    """

    severity: Severity
    problem: str
    where: str
    remedy: str
    names: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Folder and files, or file, or setting; paths below the current folder are told from there."""
        where = shortened(self.where)
        if not self.names:
            return where
        more = len(self.names) - LISTED
        return f"{where}: {', '.join(self.names[:LISTED])}" + (f" and {more} more" if more > 0 else "")

    def __str__(self) -> str:
        """Returns one line of text, as errors are said."""
        return f"{self.place}: {self.problem}. {self.remedy}"


def shortened(text: str) -> str:
    """Returns a text whose leading path is told from the current folder, where it lies below it."""
    here = f"{Path.cwd()}/"
    return text.removeprefix(here)


def refusals(error: UserError) -> list[Finding]:
    """Returns what an error says, a finding for each of its problems."""
    problems = error.problems if isinstance(error, SeveralUserErrors) else [error]
    return [Finding(Severity.STOPS, each.problem, each.where, each.remedy) for each in problems]


def refused(check: Callable[[], object]) -> list[Finding]:
    """Calls a check that raises what is wrong, and returns that; nothing where it raises nothing."""
    try:
        check()
    except UserError as error:
        return refusals(error)
    return []


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Returns findings with those of one kind and folder as one, in the order of severity, then as they came up."""
    together: dict[Finding, list[str]] = {}
    for finding in findings:
        together.setdefault(replace(finding, names=()), []).extend(finding.names)
    whole = [replace(finding, names=tuple(dict.fromkeys(names))) for finding, names in together.items()]
    return [each for severity in Severity for each in whole if each.severity is severity]


def stops(findings: Iterable[Finding]) -> bool:
    """Returns whether something was found that `fit` would refuse."""
    return any(finding.severity is Severity.STOPS for finding in findings)


def warned(findings: Iterable[Finding]) -> bool:
    """Returns whether something was found that a person should look at."""
    return any(finding.severity is Severity.WARNING for finding in findings)


def table(findings: Sequence[Finding], width: int) -> str:
    """Returns the findings as a table of problem, file, and what to do or will be done; a part for each severity.

    Args:
        findings: from `merged`.
        width: characters of a line.
    """
    parts = []
    for severity in Severity:
        rows = [(each.problem, each.place, each.remedy) for each in findings if each.severity is severity]
        if rows:
            last = "what will be done" if severity is Severity.NOTE else "what to do"
            parts.append(f"{severity.value} ({len(rows)})\n" + _columns([("problem", "file", last), *rows], width))
    return "\n\n".join(parts)


def _columns(rows: Sequence[tuple[str, str, str]], width: int) -> str:
    natural = [max(len(row[column]) for row in rows) for column in range(3)]
    room = max(width, 60) - 2 * len(GAP)
    widths = natural if sum(natural) <= room else _shared(natural, room)
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            words = [cell[number] if number < len(cell) else "" for cell in cells]
            lines.append(GAP.join(word.ljust(size) for word, size in zip(words, widths, strict=True)).rstrip())
    lines.insert(1, GAP.join("-" * size for size in widths))
    return "\n".join(lines)


def _shared(natural: Sequence[int], room: int) -> list[int]:
    """Shares the room of a line among columns: who needs less than a third gives the rest to the others."""
    widths, left, waiting = [0] * len(natural), room, sorted(range(len(natural)), key=lambda column: natural[column])
    for done, column in enumerate(waiting):
        widths[column] = min(natural[column], left // (len(natural) - done))
        left -= widths[column]
    return widths
