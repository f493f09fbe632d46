"""Folds LoRA files into a base model, with diffusers' own loader; refuses files that do not fit it whole."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.diffusion.hub import first_line
from cns_lightning.diffusion.loading import LOADING_FAULTS
from cns_lightning.errors import UserError
from cns_lightning.user_files import expanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.diffusion.base_source import FoldedLora

FIT = "Give a LoRA that was trained on this kind of base model"
CONVERT = "Save it with save_lora_weights of a diffusers pipeline, or give one in diffusers' or kohya's format"
UNREADABLE = {
    r"dora_scale|lora_magnitude_vector": "is a DoRA, which cannot be added up like a LoRA",
    r"\.hada_w": "is a LoHa",
    r"\.lokr_w": "is a LoKr",
    r"\.diff(_b)?$": "holds whole differences, not their factors",
}
"""What diffusers' loader does not read, or not whole, by a pattern of its names."""
BARE_PEFT = "base_model.model."
HEADER, ALPHA = "lora_adapter_metadata", ".alpha"
_NAME = "folded"


def fold_loras(base: BaseModel, loras: Iterable[FoldedLora]) -> None:
    """Adds LoRA files to the weights of UNet and text encoders, one after another.

    The differences are worked out in double precision, so that they are the same on nearly every machine.

    Args:
        base: base model in float32, which is changed.
        loras: files with their strengths.

    Raises:
        UserError: if a file is damaged, of another kind, or does not fit the base model whole.
    """
    for lora in loras:
        _fold(base, lora)


def _fold(base: BaseModel, lora: FoldedLora) -> None:
    from diffusers.utils import USE_PEFT_BACKEND

    path, where = expanded(lora.file), f"LoRA file {lora.file}"
    if not USE_PEFT_BACKEND:
        raise UserError(where, "peft is too old for the installed diffusers", "Update it: pip install -U peft")
    _check_kind(path, where)
    pipe: Any = base.pipeline()
    parts = [base.unet, *base.text_encoders]
    keywords = {"unet_config": base.unet.config} if base.is_xl else {}
    with _explained(where, base.source), _quiet():
        # The file as diffusers names its tensors; what is not found in the model afterwards found no place.
        tensors = pipe.lora_state_dict(str(path), **keywords)[0]
        pipe.load_lora_weights(str(path), adapter_name=_NAME)
    try:
        _check_placed(tensors, parts, where, base.source)
        if (scales := _scales(path)) is not None:
            _set_scales(parts, scales)
        for _, weight in _lora_weights(parts):
            weight.data = weight.data.double()
        pipe.fuse_lora(lora_scale=lora.strength)
    finally:
        pipe.unload_lora_weights()
    for part in parts:
        part.requires_grad_(False)
        part.eval()


def _check_kind(path: Path, where: str) -> None:
    """Refuses what diffusers would read wrongly or not at all, by the names and numbers of a file.

    Raises:
        UserError: saying what it is.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            unfit = [name for name in names if not bool(torch.isfinite(file.get_tensor(name).float()).all())]
    except (SafetensorError, OSError) as error:
        raise UserError(where, f"is damaged or not a safetensors file ({error})", "Copy the file again") from error
    for pattern, problem in UNREADABLE.items():
        if any(re.search(pattern, name) for name in names):
            raise UserError(where, problem, CONVERT)
    if not any("lora" in name for name in names):
        raise UserError(where, f"is not a LoRA: it holds {', '.join(names[:3]) or 'nothing'}", FIT)
    if all(name.startswith(BARE_PEFT) for name in names):
        raise UserError(where, "is an adapter as peft alone saves it, which does not say for which part it is", CONVERT)
    if unfit:
        raise UserError(where, f"holds numbers that are not finite in {unfit[0]}", "Copy the file again")


@contextmanager
def _explained(where: str, base: str) -> Iterator[None]:
    """Says in one sentence what the libraries say of a file that does not fit.

    Raises:
        UserError: for what they raise.
    """
    try:
        yield
    except LOADING_FAULTS as error:
        text = str(error)
        sizes = next((line.strip() for line in text.splitlines() if "size mismatch" in line), "")
        problem = f"does not fit the base model {base}: {sizes or first_line(error)}"
        raise UserError(where, problem[:400], FIT) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides what diffusers and transformers say of parts without a LoRA; what found no place is refused anyway."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    kept = [(log, log.get_verbosity()) for log in (diffusers_logging, transformers_logging)]
    for log, _ in kept:
        log.set_verbosity(log.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, verbosity in kept:
            log.set_verbosity(verbosity)


def _check_placed(tensors: Mapping[str, Tensor], parts: Iterable[nn.Module], where: str, base: str) -> None:
    """Compares what stands in the model with the file, bit for bit.

    Args:
        tensors: tensors of the file.
        parts: UNet and text encoders that have read it.
        where: the file, for the message.
        base: base model, for the message.

    Raises:
        UserError: if a tensor is in no place.
    """
    placed = Counter(_digest(weight) for _, weight in _lora_weights(parts))
    lost = []
    for name, tensor in tensors.items():
        digest = _digest(tensor)
        if not placed[digest]:
            lost.append(name)
        placed[digest] -= 1
    if lost:
        named = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
        problem = f"does not fit the base model {base}: {len(lost)} of {len(tensors)} tensors find no place ({named})"
        raise UserError(where, problem, FIT)


def _scales(path: Path) -> dict[bytes, float] | None:
    """Reads what each layer's product is multiplied by, alpha / rank, by the digest of its first factor.

    diffusers finds the alphas of some of kohya's layers only where all of them are equal.

    Returns:
        Scales that are not 1; None for a file that says in its header how it is scaled, which diffusers reads right.
    """
    from safetensors import safe_open

    found = {}
    with safe_open(str(path), framework="pt") as file:
        if HEADER in (file.metadata() or {}):
            return None
        for name in file.keys():  # noqa: SIM118 - a file, not a mapping
            if name.endswith(ALPHA):
                down = file.get_tensor(f"{name.removesuffix(ALPHA)}.lora_down.weight")
                found[_digest(down)] = float(file.get_tensor(name)) / len(down)
    return found


def _set_scales(parts: Iterable[nn.Module], scales: Mapping[bytes, float]) -> None:
    for part in parts:
        for layer in part.modules():
            factors = getattr(layer, "lora_A", {})
            if _NAME in factors:
                layer.scaling[_NAME] = scales.get(_digest(factors[_NAME].weight), 1.0)  # type: ignore[union-attr,index]


def _lora_weights(parts: Iterable[nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    for part in parts:
        for name, weight in part.named_parameters():
            if ".lora_" in name:
                yield name, weight


def _digest(tensor: Tensor) -> bytes:
    # Half precision is widened when it is loaded; the same numbers in float32.
    plain = tensor.detach().float().contiguous()
    return hashlib.sha256(str(tuple(plain.shape)).encode() + plain.numpy().tobytes()).digest()
