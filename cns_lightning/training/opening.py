"""Opens the registry of a run, or makes the one of a new run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch

from cns_lightning.diffusion.base_source import BaseSource
from cns_lightning.registry.files import read_index
from cns_lightning.registry.registry import NeuronRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.methods.base import Method
    from cns_lightning.runs.folder import RunFolder


def source_of(run: RunFolder, place: str, revision: str | None, strengths: Mapping[str, float] | None) -> BaseSource:
    """Returns what makes the base model of a run: a run on a hub's repository goes on with the commit it began with.

    Args:
        run: run folder.
        place: base model as the configuration names it.
        revision: revision of a hub's repository; None for the one the run began with, or the newest.
        strengths: strength of every LoRA file that is folded in, by its path.

    Raises:
        UserError: if a LoRA file is missing or unfit, or there is a revision of what is on this machine.
    """
    source, path = BaseSource.of(place, revision, strengths), run.registry / "registry.json"
    if revision is not None or not path.exists() or not run.has_begun():
        return source
    kept = read_index(run.registry).source
    return replace(source, revision=kept.revision) if kept.place == place else source


def note_moved(run: RunFolder, strengths: Mapping[str, float] | None, writes: bool) -> None:
    """Notes in a run that is finished, and so loads no base model, where its LoRA files are now.

    Args:
        run: run folder.
        strengths: strength of every LoRA file, by its path; the files are those of the run.
        writes: whether this process writes files.

    Raises:
        UserError: if a registry is damaged or cannot be written.
    """
    for folder in (run.registry, *map(run.snapshot, run.snapshot_steps())) if strengths else ():
        registry = NeuronRegistry.load(folder)
        loras = BaseSource.of(registry.base_model, strengths=strengths).loras
        registry.move_base(replace(registry.source, loras=loras), write=writes)


def open_registry(
    run: RunFolder,
    method: Method,
    base: BaseModel,
    base_weights: Mapping[str, Tensor],
    rare_words: Callable[[], tuple[str, ...]],
    writes: bool,
) -> NeuronRegistry:
    """Loads the registry of a run that has begun, else makes a new one.

    Args:
        run: run folder.
        method: method of the run.
        base: base model.
        base_weights: pretrained weights of the method's projections by parameter name.
        rare_words: called for a new run: words from which tokens start, best first.
        writes: whether this process writes files.

    Raises:
        UserError: if the registry is damaged, or made on another base model.
    """
    if run.has_begun() and (run.registry / "registry.json").exists():
        registry = NeuronRegistry.load(run.registry)
        registry.check_base(base.fingerprints())
        registry.move_base(base.origin, write=writes)
        registry.lend_base_weights(base_weights)
        return registry
    parameters = sum(parameter.numel() for parameter in base.unet.parameters())
    kind = type(method)
    fused_by = f"{kind.__module__}.{kind.__qualname__}" if kind.fuses else None
    registry = NeuronRegistry.create(
        run.registry, base.origin, base.fingerprint(), dict(base_weights), parameters, fused_by, rare_words()
    )
    if writes:
        registry.save()  # With base model and rare words: what goes on must not have others.
    return registry


def lay_out(base: BaseModel, dtype: torch.dtype, channels_last: bool, checkpoints: bool) -> None:
    """Gives a base model the precision and the layout in which it stands frozen while a run trains.

    Args:
        base: base model.
        dtype: precision of every part.
        channels_last: whether the UNet's weights lie channel by channel for each place.
        checkpoints: whether the UNet's blocks are computed again on the way back in place of being kept.
    """
    base.to(dtype=dtype)
    if checkpoints:
        base.unet.enable_gradient_checkpointing()
    if channels_last:
        cast("Any", base.unet).to(memory_format=torch.channels_last)
