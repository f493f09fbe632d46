"""Families of queries, and by how many words two of them differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cns_lightning.errors import UserError
from cns_lightning.user_files import expanded, read_text


@dataclass(frozen=True)
class Family:
    """Queries that are compared with each other.

    Attributes:
        name: subject of the queries.
        queries: the queries, in order.
    """

    name: str
    queries: tuple[str, ...]


def read_families(name: str) -> list[Family]:
    """Reads families of queries: one query per line, a line that starts with ``#`` begins a family and names it.

    Lines of ``#`` without queries below them are comments.

    Args:
        name: path of a text file; a bare name stands for one that ships.

    Raises:
        UserError: if there is no such file, or a family has fewer than two queries.
    """
    path = expanded(name)
    if not path.is_file():
        path = Path(str(files("cns_lightning") / "configs" / "queries" / f"{name}.txt"))
    if not path.is_file():
        shipped = sorted(each.stem for each in path.parent.glob("*.txt"))
        raise UserError("--queries", f"there is no file {name}", f"Give a path, or one of {', '.join(shipped)}")
    found: dict[str, list[str]] = {}
    heading = "queries"
    for line in (each.strip() for each in read_text(path, "Give a text file, one query per line").splitlines()):
        if line.startswith("#"):
            heading = line.lstrip("# ").rstrip()
        elif line:
            found.setdefault(heading, []).append(line)
    if not found:
        raise UserError(str(path), "holds no queries", "Write one a line")
    for family, queries in found.items():
        if len(queries) < 2:
            raise UserError(f"{path}: {family}", "has one query, nothing to compare it with", "Write two or more")
    return [Family(family, tuple(queries)) for family, queries in found.items()]


def words_differing(one: str, two: str) -> int:
    """Counts the words by which two queries differ: place by place where they have as many, else as sets with repeats.

    Punctuation and case do not count.
    """
    first, second = (["".join(filter(str.isalnum, word)).lower() for word in text.split()] for text in (one, two))
    if len(first) == len(second):
        return sum(a != b for a, b in zip(first, second, strict=True))
    return max(len(first), len(second)) - sum((Counter(first) & Counter(second)).values())
