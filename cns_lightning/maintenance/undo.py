"""Taking concepts out of a run folder so that `fit` goes on from there: registry, snapshots, checkpoint, config, rows.

The registry changes first and by itself; the rest follows from it. A process that dies in between leaves a folder that
`fit` refuses and a second `--rollback` puts right.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from cns_lightning.errors import UserError
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.checkpoint_file import DamagedCheckpoint, SealedCheckpointIO, newest_checkpoint
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.runs.metrics import read_rows, write_rows
from cns_lightning.storage import read_json, write_atomically, write_json
from cns_lightning.training.position import Position


@dataclass(frozen=True)
class UndoResult:
    """What was taken out of a run.

    Attributes:
        removed: tokens that the model does not know any more.
        later: tokens learned on top of them that stay.
        restarted: token of the stage that was running, whose steps are lost; None if none was.
    """

    removed: list[str]
    later: list[str]
    restarted: str | None


def rollback(folder: RunFolder, registry: NeuronRegistry, token: str) -> UndoResult:
    """Brings a run folder to the state right after a concept was learned; `fit` goes on from there.

    Raises:
        UserError: if there is none of that token, or files are missing or cannot be written.
    """
    count = len(registry.tokens) - len(registry.later(token))
    state = _state_after(folder, count)
    restarted = _running(folder, registry)
    removed = registry.rollback(token)
    _follow_in_snapshots(folder, registry)
    _forget_scores(folder, count)
    if state is not None:
        for stage in range(count, len(_concepts(folder))):
            for sheet in (folder.sample_sheet(stage), folder.step_sheet(stage)):
                sheet.unlink(missing_ok=True)
        _follow(folder, registry, [])
        _go_back(folder, state, count)
    return UndoResult(removed, [], restarted)


def remove(folder: RunFolder, registry: NeuronRegistry, token: str) -> UndoResult:
    """Takes one concept out of a run folder; later ones keep what they learned and move up by one stage.

    The sheets of pictures stay as they were drawn, and move up with their concepts; that of the removed one goes.

    Raises:
        UserError: if there is none of that token, or files are missing or cannot be written.
    """
    # Concepts that are fused were learned by themselves, none on top of another.
    later = [] if registry.fused_by else registry.later(token)
    count = len(registry.tokens) - 1
    state = _state_after(folder, count)
    restarted = _running(folder, registry)
    ahead, place = _concepts(folder)[count + 1 :], count - len(registry.later(token))
    registry.remove(token)
    _forget_scores(folder, place)
    for sheet in (folder.sample_sheet, folder.step_sheet):
        sheet(place).unlink(missing_ok=True)
        for stage in range(place + 1, count + 2):
            if sheet(stage).exists():
                os.replace(sheet(stage), sheet(stage - 1))
    _follow_in_snapshots(folder, registry)
    if _has_state(folder):
        _follow(folder, registry, ahead)
        _go_back(folder, state, count)
    return UndoResult([token], later, restarted)


def _follow(folder: RunFolder, registry: NeuronRegistry, ahead: list[dict[str, Any]]) -> None:
    """Makes rows, seconds and configuration follow the registry, by token; doing it twice is doing it once.

    Args:
        folder: folder of the run.
        registry: after the change.
        ahead: concepts of the sequence that are still to be learned.
    """
    tokens = registry.tokens
    rows, kept, first = read_rows(folder.metrics), [], 0
    for stage, token in enumerate(tokens):
        own = [row for row in rows if row["concept"] == token]
        kept += [{**row, "stage": str(stage), "step": str(first + int(row["stage_step"]))} for row in own]
        first += max((int(row["stage_step"]) for row in own), default=0)
    write_rows(folder.metrics, kept)
    if folder.timings.exists():
        content = read_json(folder.timings)
        by_token = {entry["concept"]: entry for entry in content["stages"].values()}
        stages = {str(stage): by_token[token] for stage, token in enumerate(tokens) if token in by_token}
        write_json(folder.timings, {**content, "stages": stages})
    if folder.config.exists():
        config = RunConfig.read(folder)
        learned = {concept["token"]: concept for concept in config.concepts}
        concepts = [learned[token] for token in tokens if token in learned] + ahead
        replace(config, sequence={**config.sequence, "concepts": concepts}).write()


def _forget_scores(folder: RunFolder, count: int) -> None:
    """Drops the figures of models that are no more: `test` and the monitor score what there is now.

    Args:
        folder: folder of the run.
        count: number of first stages after which the model is still what it was.
    """
    (folder.evaluation / "scores.json").unlink(missing_ok=True)
    monitor = folder.evaluation / "monitor.json"
    if monitor.exists():
        content = read_json(monitor)
        rows = [row for row in content["stages"] if row["stage"] < count]
        write_json(monitor, {"scored_with": content.get("scored_with"), "stages": rows})


def _follow_in_snapshots(folder: RunFolder, registry: NeuronRegistry) -> None:
    """Takes out of every snapshot what the registry does not hold, a concept that was being learned included."""
    for steps in folder.snapshot_steps():
        snapshot = NeuronRegistry.load(folder.snapshot(steps), check_files=False)
        for token in snapshot.tokens:
            if token not in registry.tokens:
                snapshot.remove(token)


def _has_state(folder: RunFolder) -> bool:
    return any(path.exists() for path in folder.checkpoints.glob("*.ckpt"))


def _state_after(folder: RunFolder, count: int) -> bytes | None:
    """Reads the checkpoint after the first concepts; None without any, or where nothing was learned yet."""
    if not _has_state(folder) or count == 0:
        return None
    path = folder.stage_checkpoint(count - 1)
    try:
        SealedCheckpointIO().load_checkpoint(path)
    except (DamagedCheckpoint, OSError) as error:
        remedy = "Restore it from a copy; the registry alone, in a folder of its own, can be changed without it"
        raise UserError(str(path), f"is needed to go back, and is missing or damaged ({error})", remedy) from error
    return path.read_bytes()


def _running(folder: RunFolder, registry: NeuronRegistry) -> str | None:
    newest = newest_checkpoint(folder.last_checkpoint, lambda _: None) if _has_state(folder) else None
    if newest is None:
        return None
    position, concepts = Position.read(SealedCheckpointIO().load_checkpoint(newest)), _concepts(folder)
    stage = position.stage
    is_running = position.is_within_stage and stage == len(registry.tokens) < len(concepts)
    return concepts[stage]["token"] if is_running else None


def _go_back(folder: RunFolder, state: bytes | None, count: int) -> None:
    """Makes a stage's checkpoint the newest one; the newest is written last."""
    for path in folder.checkpoints.glob("stage-*.ckpt"):
        stage = path.stem.removeprefix("stage-")
        if stage.isdecimal() and int(stage) >= count:  # others are the user's copies
            path.unlink()
    if state is not None:
        write_atomically(folder.last_checkpoint, state)
    for path in (folder.last_checkpoint.with_suffix(".new"), folder.checkpoints / "previous.ckpt"):
        path.unlink(missing_ok=True)
    if state is None:
        folder.last_checkpoint.unlink(missing_ok=True)


def _concepts(folder: RunFolder) -> list[dict[str, Any]]:
    config = RunConfig.find(folder)
    return [] if config is None else config.concepts
