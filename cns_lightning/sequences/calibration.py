"""Descriptions of anything: what must not be mistaken for a concept, and what a merged model must treat as before."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from cns_lightning.errors import UserError
from cns_lightning.user_files import expanded, read_text


def read_calibration_prompts(name: str) -> tuple[str, ...]:
    """Reads the calibration prompts, one a line; blank lines and lines that start with # are left out.

    Raises:
        UserError: if there is no such file or nothing in it.
    """
    path = expanded(name)
    if not name.strip() or not path.is_file():
        path = _shipped() / f"{name}.txt"
    if not path.is_file():
        shipped = sorted(each.stem for each in path.parent.glob("*.txt"))
        raise UserError("calibration", f"there is no file {name}", f"Give a path, or one of {', '.join(shipped)}")
    lines = (line.strip() for line in read_text(path, "Give a text file, one description per line").splitlines())
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise UserError(str(path), "holds no calibration prompts", "Write one a line; about 100 are usual")
    return prompts


def shipped_prompts() -> tuple[str, ...]:
    """Returns the calibration prompts of every file that ships."""
    return tuple(prompt for path in sorted(_shipped().glob("*.txt")) for prompt in read_calibration_prompts(path.stem))


def _shipped() -> Path:
    return Path(str(files("cns_lightning") / "configs" / "calibration"))
