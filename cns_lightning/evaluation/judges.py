"""Which models look at pictures, and what is said when one is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError

from cns_lightning.diffusion.loading import quiet_loading
from cns_lightning.errors import UserError
from cns_lightning.evaluation.dino import DinoEncoder
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.user_files import expanded

if TYPE_CHECKING:
    import torch

JUDGE = "openai/clip-vit-base-patch32"


def judge_of(base_model: str) -> str:
    """Returns the judge that suits a base model: the miniature has its own."""
    from cns_lightning.miniature import judge_path

    return str(judge_path()) if base_model == "miniature" else JUDGE


def clip_encoder(name: str, device: torch.device | str, where: str = "--judge") -> ClipEncoder:
    """Loads a judge for CLIP-I and CLIP-T; ``where`` is the key that names it, for the message.

    Raises:
        UserError: if it is not there or no CLIPModel.
    """
    try:
        with quiet_loading():
            return ClipEncoder(str(expanded(name)), device)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(where, f"{name} cannot be loaded ({reason})", "Give a CLIPModel folder") from error


def dino_encoder(name: str | None, device: torch.device | str, where: str = "--dino") -> DinoEncoder | None:
    """Loads a DINO model; None for none; ``where`` is the key that names it, for the message.

    Raises:
        UserError: if it is not there or no vision transformer.
    """
    if name is None:
        return None
    try:
        with quiet_loading():
            return DinoEncoder(str(expanded(name)), device)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(where, f"{name} cannot be loaded ({reason})", "Give a ViT or DINO folder") from error
