"""Proof that a run folder is whole: files are what was written, weights outside the masks are the base model's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import TEXT_PREFIX
from cns_lightning.errors import Problems
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.application import load_base
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.checkpoint_file import DamagedCheckpoint, SealedCheckpointIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from cns_lightning.runs.folder import RunFolder

REMEDY = "Restore it from a copy"


@dataclass(frozen=True)
class Verified:
    """What was looked at.

    Attributes:
        files: files that were read and compared with their checksums.
        weights: those of which some may be moved: keys and values, or more where the method moves more.
        moved: how many of them differ from the base model's, all inside the concepts' masks.
    """

    files: int
    weights: int
    moved: int


def verify_run(folder: RunFolder, registry: NeuronRegistry, base_model: str | None = None) -> Verified:
    """Reads all files of registry, snapshots and checkpoints, builds the learned model and compares it with the base.

    Args:
        folder: folder of the run.
        registry: its concepts.
        base_model: where the base model is now; None where it was.

    Raises:
        UserError: naming every file that is missing or damaged, or if the base model is not the one that was learned
            on.
        RuntimeError: if a weight outside the masks differs, never the user's fault.
    """
    files = registry.verify() + _verify_snapshots(folder) + _verify_checkpoints(folder)
    base = load_base(registry, base_model)
    pipe = load_pipeline(folder.path, base_model=base_model)
    movable = registry.union()
    union = movable.bools()
    weights = max(movable.total(), sum(each.weight.numel() for each in key_value_projections(base.unet).values()))
    moved, wrong = 0, []
    after = dict(_tensors(pipe))
    for name, then in _tensors(base):
        # Tables have rows for the concepts' tokens behind those of the base model.
        now = after[name][: len(then)] if then.ndim else after[name]
        differs = _bits(now) != _bits(then)
        inside = union.get(name.removeprefix("unet.").replace("text_0.", TEXT_PREFIX))
        moved += int(differs.sum()) if inside is not None else 0
        if bool((differs if inside is None else differs & ~inside).any()):
            wrong.append(name)
    if wrong:
        raise RuntimeError(f"weights outside every mask differ from the base model's: {', '.join(wrong[:10])}")
    return Verified(files, weights, moved)


def _verify_snapshots(folder: RunFolder) -> int:
    steps = folder.snapshot_steps()
    return sum(NeuronRegistry.load(folder.snapshot(each), check_files=False).verify() for each in steps)


def _verify_checkpoints(folder: RunFolder) -> int:
    problems, read = Problems(), 0
    for path in sorted(folder.checkpoints.glob("*.ckpt")):
        try:
            SealedCheckpointIO().load_checkpoint(path)
        except (DamagedCheckpoint, OSError):
            problems.add(str(path), "is not what was written", f"{REMEDY}, or delete it: fit takes the one before")
        read += 1
    problems.raise_if_any()
    return read


def _tensors(parts: Any) -> Iterator[tuple[str, Tensor]]:
    """Names every weight of the UNet, the autoencoder and the text encoders of a base model or a pipeline."""
    encoders = getattr(parts, "text_encoders", None) or [
        each for each in (parts.text_encoder, getattr(parts, "text_encoder_2", None)) if each is not None
    ]
    named = {"unet": parts.unet, "vae": parts.vae, **{f"text_{number}": each for number, each in enumerate(encoders)}}
    for part, module in named.items():
        for name, value in module.state_dict().items():
            yield f"{part}.{name}", value


def _bits(value: Tensor) -> Tensor:
    # Bits, not numbers: a changed sign of zero is a change.
    return value.contiguous().view(torch.int32) if value.dtype == torch.float32 else value
