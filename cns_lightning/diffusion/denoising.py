"""The denoising loss that every method minimises."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.diffusion.text import TextStates


def denoising_loss(
    base: BaseModel,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    states: TextStates,
    valid_region: Tensor | None = None,
    weights: Tensor | None = None,
    unet: Callable[..., Any] | None = None,
) -> Tensor:
    """Returns each sample's mean squared error of what the UNet predicts from noisy latents.

    The target is the noise, the velocity or the clean latents, as the base model was trained.

    Args:
        base: the model; weights that are overridden count as they are.
        latents: scaled, shape (samples, channels, height, width), float32.
        noise: standard normal, shape of ``latents``.
        timesteps: shape (samples,), int64, 0 to the scheduler's last.
        states: states of one prompt per sample.
        valid_region: latent cells that count, 0 or 1, shape (samples, 1, height, width); the mean is over them, and 0
            where there are none. None counts all.
        weights: factors on the squared errors, of the same shape; None for 1. They do not change over how many cells
            the mean is taken: a sample of which little is to be learned counts little.
        unet: what computes as the model's UNet does, called as it is; None for that one.

    Returns:
        Shape (samples,), float32.

    Raises:
        ValueError: if valid region or weights have another shape; they would mix the samples of a batch.

    Source: DDPM (arXiv 2006.11239) Eq. 14; Custom Diffusion's valid region, docs/methods.md 4.2.
    """
    noisy = base.noise_scheduler.add_noise(latents, noise, timesteps)  # type: ignore[arg-type]
    predicted = (base.unet if unet is None else unet)(
        noisy.to(base.dtype),
        timesteps,
        encoder_hidden_states=states.states.to(base.dtype),
        added_cond_kwargs=added_conditions(base, latents, states),
        return_dict=False,
    )[0]
    error = (predicted.float() - _target(base, latents, noise, timesteps).float()).square().mean(1, keepdim=True)
    if weights is not None:
        if weights.shape != error.shape:
            raise ValueError(f"weights are {tuple(weights.shape)}, must be {tuple(error.shape)}")
        error = error * weights.to(error)
    if valid_region is None:
        return error.mean((1, 2, 3))
    if valid_region.shape != error.shape:
        raise ValueError(f"valid_region is {tuple(valid_region.shape)}, must be {tuple(error.shape)}")
    cells = valid_region.to(error)
    return (error * cells).sum((1, 2, 3)) / cells.sum((1, 2, 3)).clamp_min(1)


def _target(base: BaseModel, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    kind = base.noise_scheduler.config["prediction_type"]
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return base.noise_scheduler.get_velocity(latents, noise, timesteps)  # type: ignore[arg-type]
    return latents


def added_conditions(base: BaseModel, latents: Tensor, states: TextStates) -> dict[str, Tensor] | None:
    """Returns what SDXL reads besides: the pooled text, and original size, crop corner and target size in pixels."""
    if not base.is_xl:
        return None
    assert states.pooled is not None, "a model with two text encoders has a pooled state"
    height, width = (cells * base.latent_scale for cells in latents.shape[-2:])
    sizes = _sizes(height, width, latents.device, base.dtype)
    return {"text_embeds": states.pooled.to(base.dtype), "time_ids": sizes.repeat(len(latents), 1)}


@lru_cache(maxsize=4)
def _sizes(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    # Kept: making it anew at every step would wait for the device.
    return torch.tensor([height, width, 0, 0, height, width], device=device, dtype=dtype)
