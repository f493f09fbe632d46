"""What stands in the documents: fenced blocks, commands, words of code, links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^(?:\.venv/bin/)?python -m cns_lightning ")


def read(name: str) -> str:
    """Returns the text of a document, by its path in the repository."""
    return (ROOT / name).read_text("utf-8")


def blocks(text: str, language: str = "") -> list[str]:
    """Returns the fenced blocks of a language; without one, those that are commands."""
    return [body for _, given, body in FENCED.findall(text) if given == language]


def commands(text: str) -> list[str]:
    """Returns the lines of all blocks of commands, without comments; lines that go on are joined."""
    lines = "\n".join(blocks(text)).replace("\\\n", " ").splitlines()
    return [line for each in lines if (line := re.sub(r"\s#.*", "", each).strip())]


def words(command: str) -> list[str]:
    """Returns the words behind the program's name.

    Raises:
        ValueError: if it is another program.
    """
    if not PROGRAM.match(command):
        raise ValueError(f"not a command of this program: {command}")
    return shlex.split(PROGRAM.sub("", command))


def code_spans(text: str) -> list[str]:
    """Returns the words of code in a text's paragraphs and tables."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def prose(text: str) -> str:
    """Returns a text without blocks and words of code."""
    return re.sub(r"`[^`\n]+`", "", FENCED.sub("", text))


def slug(heading: str) -> str:
    """Returns the anchor that code hosts and Sphinx give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
