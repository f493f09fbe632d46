"""``config.yaml`` of a run folder: the one reader and writer of what a run was started with."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import yaml

from cns_lightning.errors import UserError
from cns_lightning.sequences.sequence import Sequence
from cns_lightning.sequences.templates import PromptTemplates
from cns_lightning.storage import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from cns_lightning.runs.folder import RunFolder

USUAL_STEPS, USUAL_GUIDANCE = 25, 7.5
RESTORE = "Restore it from a copy"


@dataclass(frozen=True)
class RunConfig:
    """What a run was started with.

    Attributes:
        path: the file.
        settings: settings that a continued run must share, by dotted key.
        sequence: name, concepts and prompts, as `Sequence.plain` returns them.
        whole: configuration of ``fit``.
    """

    path: Path
    settings: dict[str, Any]
    sequence: dict[str, Any]
    whole: dict[str, Any]

    @classmethod
    def read(cls, folder: RunFolder) -> RunConfig:
        """Reads the configuration of a run.

        Raises:
            UserError: if the file is missing or damaged.
        """
        path = folder.config
        if not path.exists():
            raise UserError(str(path), "is missing, it says what the run was started with", RESTORE)
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(str(path), "is damaged", RESTORE) from error
        return cls.of(path, content)

    @classmethod
    def of(cls, path: Path, content: Any) -> RunConfig:
        """Takes what a file holds for the configuration of a run.

        Raises:
            UserError: if it is none, or damaged.
        """
        try:
            found = cls(path, content["settings"], content["sequence"], content["whole"])
            found.read_sequence()
        except (KeyError, TypeError) as error:
            raise UserError(str(path), "is damaged", RESTORE) from error
        if not isinstance(found.whole, dict):
            raise UserError(str(path), "is damaged", RESTORE)
        return found

    @classmethod
    def find(cls, folder: RunFolder) -> RunConfig | None:
        """Reads the configuration of a run that may be new; returns None without a file."""
        return cls.read(folder) if folder.config.exists() else None

    def write(self) -> None:
        """Writes the file, atomically; raises what `write_atomically` raises."""
        content = {"settings": self.settings, "sequence": self.sequence, "whole": self.whole}
        write_atomically(self.path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())

    def read_sequence(self) -> Sequence:
        """Returns the sequence, with the prompts that the run was started with."""
        return Sequence.from_plain(self.sequence)

    @property
    def concepts(self) -> list[dict[str, Any]]:
        """The concepts of the sequence, in its order."""
        return self.sequence["concepts"]

    @property
    def data(self) -> dict[str, Any]:
        """Settings of the data module."""
        return self.whole.get("data", {})

    @property
    def templates(self) -> PromptTemplates:
        """Training templates; the usual ones in runs that are older than the setting."""
        return PromptTemplates(**self.data.get("templates", {}))

    @property
    def samples(self) -> dict[str, Any]:
        """Settings of the run's own samples."""
        return self.whole.get("samples", {})

    @property
    def selection(self) -> dict[str, Any]:
        """Settings of the callback that selects neurons, by name; empty where the run has none."""
        callbacks = self.whole.get("trainer", {}).get("callbacks") or []
        for each in callbacks if isinstance(callbacks, list) else [callbacks]:
            if each["class_path"].endswith(".ImportanceScoring"):
                return each.get("init_args") or {}
        return {}

    @property
    def sampling(self) -> tuple[int, float]:
        """Steps and guidance of the run's own samples, which suit its base model."""
        return int(self.samples.get("steps", USUAL_STEPS)), float(self.samples.get("guidance", USUAL_GUIDANCE))

    def method(self) -> tuple[Any, dict[str, Any]]:
        """Returns the class of the run's method, and its settings.

        Raises:
            UserError: if the method does not exist any more.
        """
        named = self.whole["model"]["method"]
        module, name = named["class_path"].rsplit(".", 1)
        try:
            return getattr(import_module(module), name), dict(named.get("init_args") or {})
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"{self.path}: model.method", f"{module}.{name} is not there ({error})", "Install it"
            ) from error
