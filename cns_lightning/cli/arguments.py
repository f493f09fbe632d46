"""Kinds of argument that several commands take."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from cns_lightning.user_files import expanded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def at_least(least: int) -> Callable[[str], int]:
    """Returns an argparse type for whole numbers of at least ``least``."""

    def whole_number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return whole_number


def finite_number(text: str) -> float:
    """Reads a number of at least 0, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return number


def source_argument(text: str) -> str:
    """Reads the name or place of a model or file, for argparse; refuses an empty text, as of an unset variable."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty, a name or path is needed")
    return str(expanded(text))


def path_argument(text: str) -> Path:
    """Reads a path, for argparse: ``~`` is the home folder, and an empty text, as of an unset variable, is refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty, a path is needed")
    return expanded(text)


def add_model_options(options: argparse.ArgumentParser) -> None:
    """Adds where a run's model is drawn with, and where its base model is now."""
    options.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps (cuda where there is one, else cpu)")
    options.add_argument(
        "--base-model",
        type=source_argument,
        metavar="SOURCE",
        help="where the run's base model is now, if it was moved",
    )
