"""Which settings a run may be continued with: those that touch what is learned must stay as they were."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from cns_lightning.callbacks.stage_end import StageEnd
from cns_lightning.callbacks.step_mode import StepMode
from cns_lightning.configuration.concept_settings import changed_concepts
from cns_lightning.data.module import ConceptDataModule
from cns_lightning.errors import UserError
from cns_lightning.module import ContinualPersonalization
from cns_lightning.registry.files import INDEX, read_index
from cns_lightning.runs.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cns_lightning.diffusion.base_source import BaseSource
    from cns_lightning.runs.folder import RunFolder
    from cns_lightning.sequences.sequence import Sequence

# A changed value of these may continue a run: they touch nothing that is learned.
SAFE_KEYS = (
    *("progress", "metrics", "samples", "monitor", "checkpoint", "timer", "finite", "signals", "data.sequence"),
    *("model.base_model", "model.revision", "model.base_loras"),  # the registry knows their fingerprint
    *("trainer.logger", "trainer.default_root_dir", "trainer.max_epochs"),
)

WITHOUT = {"data.masks.alpha": False}
"""What versions did that did not know an argument, where that is not its default. With the default, the checksum of a
running stage's pictures tells whether it makes a difference."""


def comparable(config: Namespace) -> dict[str, Any]:
    """Returns the settings that must stay the same for a run to be continued, by dotted key."""
    whole = {key: value for key, value in config.as_dict().items() if key not in ("config", "run", "steps")}
    if whole["stage_end"]["keep"] == "last":  # what is not kept may be looked at in any way
        whole = {key: value for key, value in whole.items() if key not in ("stage_end", "snapshots")}
    callbacks = whole["trainer"].get("callbacks")
    if isinstance(callbacks, list):
        whole["trainer"]["callbacks"] = [each for each in callbacks if _is_compared(each["class_path"])]
    return {key: value for key, value in _leaves(whole, "") if not _is_safe(key)}


def _is_safe(key: str) -> bool:
    return any(key == safe or key.startswith((f"{safe}.", f"{safe}[")) for safe in SAFE_KEYS)


def _is_compared(class_path: str) -> bool:
    """Returns whether a callback touches what is learned; MaskFreezing must be there, but once was not needed."""
    return is_own(class_path) and not class_path.endswith(".MaskFreezing")


def is_own(class_path: str) -> bool:
    """Returns whether a callback is one of this package or made of one; others touch nothing that is learned."""
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError):  # of an earlier start
        return False
    return any(each.__module__.startswith("cns_lightning.") for each in kind.__mro__)


def _still_compared(kept: dict[str, Any]) -> dict[str, Any]:
    """Leaves out of the settings of an earlier start what was compared then and is not any more."""
    others = tuple(
        key.removesuffix("class_path")
        for key, value in kept.items()
        if re.fullmatch(r"trainer\.callbacks\[\d+\]\.class_path", key) and not _is_compared(value)
    )
    return {key: value for key, value in kept.items() if not _is_safe(key) and not key.startswith(others)}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{key}[{number}]")
    else:
        yield key, value if isinstance(value, int | float | bool | None) else str(value)


def _usual(key: str, settings: dict[str, Any]) -> Any:
    """Returns the default of an argument by its dotted key: what a run did whose version did not know it yet.

    None for an unknown argument.
    """
    head, inner, path = key.partition(".init_args.")
    if not inner:
        head, _, path = key.partition(".")
    owners = {
        "model": ContinualPersonalization, "data": ConceptDataModule, "stage_end": StageEnd, "training": StepMode,
    }  # fmt: skip
    owner: Any = owners.get(head)
    if inner:
        module, _, name = settings[f"{head}.class_path"].rpartition(".")
        owner = getattr(import_module(module), name)
    name, *rest = path.split(".")
    found = inspect.signature(owner).parameters.get(name) if owner is not None else None
    value = None if found is None else found.default
    for part in rest:
        value = getattr(value, part, None)
    return value


def _is_same(key: str, one: Any, other: Any) -> bool:
    """Returns whether a kept value and a new one mean the same.

    The trainer's numbers are words where the command line gave them; devices that were left open may have been any
    number; and one process never had a strategy.
    """
    if key == "trainer.devices" and str(one) in ("auto", "-1"):
        return True
    if key == "trainer.strategy" and {one, other} <= {"auto", "ddp"}:
        return True
    return one == other or (key.startswith("trainer.") and str(one) == str(other))


def check_unchanged(
    folder: RunFolder, settings: dict[str, Any], sequence: Sequence, but_for: tuple[str, ...] = ()
) -> None:
    """Refuses to continue a run with other settings, or other concepts where their stages have begun.

    Args:
        folder: run folder, which may be new.
        settings: settings that it must share, from `comparable`.
        sequence: sequence that is to be learned.
        but_for: beginnings of keys that may differ.

    Raises:
        UserError: naming every difference.
    """
    kept = RunConfig.find(folder)
    if kept is None or not folder.has_begun():
        return
    before = _still_compared(kept.settings)
    differences = [
        f"{key} was {before.get(key, 'not set')!r} and is {settings.get(key, 'not set')!r}"
        for key in sorted(before.keys() | settings.keys())
        if not _is_same(key, before.get(key), settings.get(key)) and not key.startswith(but_for)
        and (key in before or settings.get(key) not in (_usual(key, settings), WITHOUT.get(key, _usual(key, settings))))
    ]  # fmt: skip
    differences += changed_concepts(folder, kept.concepts, sequence)
    if differences:
        raise UserError(
            str(folder.path),
            "holds a run with another configuration: " + "; ".join(differences),
            "Use the old settings to continue it, or another --run folder",
        )


def check_folded(folder: RunFolder, source: BaseSource) -> None:
    """Refuses to continue a run with other LoRA files in its base model, or at other strengths; they may have moved.

    Args:
        folder: run folder, which may be new.
        source: base model of the configuration.

    Raises:
        UserError: saying what was folded in, and what is now.
    """
    if not folder.has_begun() or not (folder.registry / INDEX).exists():
        return
    kept = read_index(folder.registry).source
    if not kept.is_folded_like(source):
        problem = (
            f"holds a run whose base model has {kept.folded} folded in, the configuration folds in {source.folded}"
        )
        raise UserError(str(folder.path), problem, "Set model.base_loras as it was, or use another --run folder")
