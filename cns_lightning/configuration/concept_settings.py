"""Settings of single concepts: whether the method has such rates, and what may change between two starts of a run."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from cns_lightning.errors import Problems
from cns_lightning.runs.checkpoint_file import SealedCheckpointIO, newest_checkpoint
from cns_lightning.sequences.concept_settings import RATE
from cns_lightning.sequences.sequence import SETTINGS
from cns_lightning.storage import read_json
from cns_lightning.training.position import Position

if TYPE_CHECKING:
    from cns_lightning.runs.folder import RunFolder
    from cns_lightning.sequences.sequence import Sequence


def check_rates(sequence: Sequence, class_path: str) -> None:
    """Refuses learning rates of concepts that the method does not have.

    Args:
        sequence: sequence that is to be learned.
        class_path: class of the method.

    Raises:
        UserError: naming every one of them.
    """
    module, _, name = class_path.rpartition(".")
    known = [each for each in signature(getattr(import_module(module), name)).parameters if each.endswith(RATE)]
    problems = Problems()
    for number, concept in enumerate(sequence.concepts):
        for rate, _ in concept.settings.rates:
            if rate not in known:
                has = f"it has {' and '.join(known)}" if known else "it has none"
                where = f"{sequence.path}: concepts[{number}].{SETTINGS}.{rate}"
                problems.add(where, f"is not a learning rate of {name}; {has}", "Leave it out, or take another method")
    problems.raise_if_any()


def changed_concepts(folder: RunFolder, kept: list[dict[str, Any]], sequence: Sequence) -> list[str]:
    """Returns what is said otherwise of concepts whose stages have begun, a phrase each; the others may change or go.

    Args:
        folder: run folder.
        kept: concepts that the run was started with, as `Sequence.plain` returns them.
        sequence: sequence that is to be learned.
    """
    found: list[str] = []
    learned, fresh = len(learned_tokens(folder)), sequence.plain()["concepts"]
    for number, old in enumerate(kept[: learned + 1]):
        new = fresh[number] if number < len(fresh) else None
        phrases = (
            [f"concepts[{number}] was {old['token']!r} and is missing"] if new is None else _changes(old, new, number)
        )
        if phrases and (number < learned or _is_running(folder, number)):
            found += phrases
    return found


def _changes(old: dict[str, Any], new: dict[str, Any], number: int) -> list[str]:
    """Returns what differs between two descriptions of a concept.

    Left out: where its pictures lie, not what they are; and what only a comparison reads.
    """
    before, now = _flat(old), _flat(new)
    keys = [key for key in old if key not in ("images", "description", SETTINGS)]  # a later version may know more
    own = sorted(key for key in before.keys() | now.keys() if key.startswith(f"{SETTINGS}."))
    return [
        f"concepts[{number}].{key} was {before.get(key, 'not set')!r} and is {now.get(key, 'not set')!r}"
        for key in (*keys, *own)
        if before.get(key) != now.get(key)
    ]


def _flat(concept: dict[str, Any]) -> dict[str, Any]:
    own = {f"{SETTINGS}.{key}": value for key, value in concept.get(SETTINGS, {}).items()}
    return {**{key: value for key, value in concept.items() if key != SETTINGS}, **own}


def _is_running(folder: RunFolder, stage: int) -> bool:
    newest = newest_checkpoint(folder.last_checkpoint, lambda _: None)
    if newest is None:
        return False
    position = Position.read(SealedCheckpointIO().load_checkpoint(newest))
    return position.is_within_stage and position.stage == stage


def learned_tokens(folder: RunFolder) -> tuple[str, ...]:
    """Returns the tokens that a run has learned; none where it has not begun."""
    path = folder.registry / "registry.json"
    return tuple(entry["token"] for entry in read_json(path)["concepts"]) if path.exists() else ()
