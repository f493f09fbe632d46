"""Where a base model comes from, and the LoRA files that are folded into it before anything else."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from cns_lightning.errors import Problems, UserError
from cns_lightning.storage import sha256_of
from cns_lightning.user_files import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping

MINIATURE = "miniature"
KEY = "model.base_loras"
INSTALL = 'Install it: pip install "cns-lightning[loras]", or pip install peft'
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION_SHOWN = 12


@dataclass(frozen=True)
class FoldedLora:
    """A LoRA file that is part of a base model.

    Attributes:
        file: absolute path of the file.
        sha256: of its content.
        strength: factor on what it adds to the weights.
    """

    file: str
    sha256: str
    strength: float

    @property
    def name(self) -> str:
        """Returns the file's name without its place on this machine."""
        return PureWindowsPath(self.file).name  # which knows both separators

    @property
    def stem(self) -> str:
        """Returns the file's name without its ending, as web UIs call it."""
        return PureWindowsPath(self.file).stem

    @property
    def said(self) -> str:
        """Returns the file's name and the strength."""
        return f"{self.name} at {self.strength:g}"


@dataclass(frozen=True)
class BaseSource:
    """What makes a base model again.

    Attributes:
        place: ``miniature``, a diffusers folder, a single ``.safetensors`` file or a hub id.
        revision: branch, tag or commit of a hub's repository; None for its newest state.
        loras: files that are folded into it, in this order.
    """

    place: str
    revision: str | None = None
    loras: tuple[FoldedLora, ...] = ()

    @classmethod
    def of(cls, place: str, revision: str | None = None, strengths: Mapping[str, float] | None = None) -> BaseSource:
        """Looks at the LoRA files.

        Args:
            place: base model.
            revision: revision of a hub's repository.
            strengths: strength of every LoRA file, by its path.

        Raises:
            UserError: if a file is missing or of another kind, a strength is 0 or not finite, peft is not installed, or
                there is a revision of what is on this machine.
        """
        check_revision(place, revision)
        problems, loras = Problems(), []
        if strengths:
            _check_installed()
        for file, strength in (strengths or {}).items():
            try:
                loras.append(_looked_at(file, strength))
            except UserError as error:
                problems.add(error.where, error.problem, error.remedy)
        problems.raise_if_any()
        return cls(place, revision, tuple(loras))

    @classmethod
    def named(cls, source: str | BaseSource) -> BaseSource:
        """Returns a source as it is, and a name as the source that it alone makes."""
        return cls(source) if isinstance(source, str) else source

    @property
    def said(self) -> str:
        """Returns the base model in words: its place, its revision, what is folded into it."""
        revision = f" at revision {self.revision[:_REVISION_SHOWN]}" if self.revision else ""
        return f"{self.place}{revision}{self.folded_in}"

    @property
    def folded_in(self) -> str:
        """Returns what is folded into it, a phrase that follows its name; empty for nothing."""
        return f" with {self.folded} folded in" if self.loras else ""

    @property
    def folded(self) -> str:
        """Returns the LoRA files and their strengths in words."""
        return ", ".join(each.said for each in self.loras) or "nothing"

    def at(self, place: str | None) -> BaseSource:
        """Returns the same base model at another place; as it is for None."""
        if place is None or place == self.place:
            return self
        return replace(self, place=place, revision=self.revision if is_hub_id(place) else None)

    def is_folded_like(self, other: BaseSource) -> bool:
        """Returns whether the same LoRA files are folded in alike, wherever they are."""
        return [(each.sha256, each.strength) for each in self.loras] == [
            (each.sha256, each.strength) for each in other.loras
        ]

    def check_files(self) -> None:
        """Makes sure that the LoRA files are what they were.

        Raises:
            UserError: naming every one that is gone or has changed; or if peft, which reads them, is not installed.
        """
        problems = Problems()
        if self.loras:
            _check_installed()
        for each in self.loras:
            path = expanded(each.file)
            remedy = "Put the file back, or run the same fit again with the place where it is now"
            if not path.is_file():
                problem = f"is gone; the base model {self.place} was made with it (at {each.strength:g})"
                problems.add(f"LoRA file {each.file}", problem, remedy)
            elif sha256_of_file(path) != each.sha256:
                problem = f"has changed since it was folded into the base model {self.place}"
                problems.add(f"LoRA file {each.file}", problem, "Put back the file as it was")
        problems.raise_if_any()

    def plain(self) -> dict[str, Any]:
        """Returns revision and LoRA files for ``registry.json``; nothing for a base model that has none."""
        revision = {"revision": self.revision} if self.revision else {}
        return revision | ({"loras": [vars(each) for each in self.loras]} if self.loras else {})

    @classmethod
    def from_plain(cls, place: str, content: Mapping[str, Any]) -> BaseSource:
        """Returns what `plain` wrote; raises KeyError or TypeError for anything else."""
        loras = tuple(FoldedLora(**each) for each in content.get("loras", ()))
        return cls(place, content.get("revision"), loras)


def is_hub_id(place: str) -> bool:
    """Returns whether a base model is a hub repository: it is named like one, and no such path exists here."""
    return place != MINIATURE and _HUB_ID.fullmatch(place) is not None and not expanded(place).exists()


def check_revision(place: str, revision: str | None) -> None:
    """Refuses a revision of anything but a hub's repository.

    Raises:
        UserError: saying what the base model is.
    """
    if revision is None or is_hub_id(place):
        return
    path = expanded(place)
    kind = "a folder" if path.is_dir() else "a file" if path.is_file() else "no hub id"
    kind = "the model that ships with the project" if place == MINIATURE else kind
    problem = f"is {revision!r}, and the base model {place} is {kind}; only repositories of the hub have revisions"
    raise UserError("model.revision", problem, "Leave it out")


def _check_installed() -> None:
    if find_spec("peft") is None:
        raise UserError(KEY, "LoRA files are read with peft, which is not installed", INSTALL)


def _looked_at(file: str, strength: float) -> FoldedLora:
    path, where = expanded(file), f"{KEY}: {file}"
    if not path.exists():
        remedy = "Give the path of a .safetensors file; relative ones are relative to where the command runs"
        raise UserError(where, "there is no such file", remedy)
    if path.is_dir():
        raise UserError(where, "is a folder", "Give the .safetensors file in it")
    if path.suffix != ".safetensors":
        remedy = "Give a .safetensors file; other files can run code when they are read"
        raise UserError(where, f"is a {path.suffix or 'file without ending'}, not a .safetensors file", remedy)
    if not math.isfinite(strength) or strength == 0:
        raise UserError(where, f"has strength {strength:g}, a finite number other than 0 is needed", "Write 0.8, say")
    # `generate` may be called elsewhere.
    return FoldedLora(str(path.absolute()), sha256_of_file(path), float(strength))


def sha256_of_file(path: Path) -> str:
    """Returns the SHA-256 of a file, as hexadecimal; reads it once as long as its size and time stay.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        state = path.stat()
        return _sha256(path.absolute(), state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", "Give a file that can be read") from error


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256_of(path)
