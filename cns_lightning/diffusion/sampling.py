"""Pictures for prompts and seeds."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from cns_lightning.diffusion.regions import Region, check_boxes, regional_attention
from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusers import DiffusionPipeline

DECODED_TOGETHER = 32
"""Longest side, in latents, of pictures that are decoded as a batch; Stable Diffusion's are decoded one after another:
eight of 512 pixels would take the decoder more memory than all the rest of a run."""


def check_steps(scheduler: Any, steps: int, where: str) -> None:
    """Refuses more steps of the sampler than the noise schedule has timesteps.

    Args:
        scheduler: the base model's scheduler.
        steps: sampling steps asked for.
        where: setting that named the steps, for the message.

    Raises:
        UserError: if there are too many.
    """
    timesteps = scheduler.config.num_train_timesteps
    if steps > timesteps:
        raise UserError(where, f"is {steps}, and the base model's scheduler has {timesteps} steps", "Take 25 to 50")


def generate(
    pipe: DiffusionPipeline,
    prompts: list[str],
    seeds: list[int],
    steps: int = 25,
    guidance: float = 7.5,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    regions: Sequence[Region] = (),
    negative_prompt: str = "",
) -> list[Image.Image]:
    """Draws one picture for every prompt and seed with the pipeline's own sampler.

    A picture depends on its prompt and seed alone, not on the others in its batch (up to the rounding of batched sums):
    its noise comes from a generator of its own on the CPU, so it is also the same on every kind of device.

    Args:
        pipe: a Stable Diffusion or SDXL pipeline.
        prompts: any number.
        seeds: each is used with every prompt.
        steps: number of steps of the sampler.
        guidance: scale of classifier-free guidance; 1 or less turns it off.
        batch_size: pictures drawn at once.
        progress: called with pictures done and pictures in all.
        regions: boxes with prompts of their own, in every picture.
        negative_prompt: what no picture shall show, outside the boxes; empty for nothing in particular.

    Returns:
        The pictures of the first prompt, then those of the second, and so on.
    """
    pairs = list(product(prompts, seeds))
    return generate_pairs(pipe, pairs, steps, guidance, batch_size, progress, regions, negative_prompt)


def generate_pairs(
    pipe: DiffusionPipeline,
    pairs: list[tuple[str, int]],
    steps: int = 25,
    guidance: float = 7.5,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    regions: Sequence[Region] = (),
    negative_prompt: str = "",
) -> list[Image.Image]:
    """Draws one picture for every pair of prompt and seed; see `generate`."""
    check_boxes(regions, _latent_size(pipe))
    boxes = [replace(each, negative_prompt=each.negative_prompt or negative_prompt) for each in regions]
    shown = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    autoencoder: Any = pipe.vae  # type: ignore[attr-defined]
    unet: Any = pipe.unet  # type: ignore[attr-defined]
    was_sliced = autoencoder.use_slicing
    autoencoder.use_slicing = was_sliced or max(_latent_size(pipe)) > DECODED_TOGETHER
    try:
        # As the pipelines decide it: a UNet that is told the scale does without the second pass.
        is_guided = guidance > 1 and getattr(unet.config, "time_cond_proj_dim", None) is None
        with regional_attention(pipe, boxes, _latent_size(pipe), guided=is_guided):
            for start in range(0, len(pairs), batch_size):
                pictures += _draw(pipe, pairs[start : start + batch_size], steps, guidance, negative_prompt)
                if progress is not None:
                    progress(len(pictures), len(pairs))
    finally:
        pipe.set_progress_bar_config(**shown)
        autoencoder.use_slicing = was_sliced
    return pictures


def _latent_size(pipe: Any) -> tuple[int, int]:
    size = pipe.unet.config.sample_size
    return (size, size) if isinstance(size, int) else tuple(size)


def _draw(
    pipe: Any, pairs: list[tuple[str, int]], steps: int, guidance: float, negative_prompt: str
) -> list[Image.Image]:
    channels, (height, width) = pipe.unet.config.in_channels, _latent_size(pipe)
    generators = [torch.Generator().manual_seed(seed) for _, seed in pairs]
    noise = torch.stack([torch.randn(channels, height, width, generator=each) for each in generators])
    output = pipe(
        prompt=[prompt for prompt, _ in pairs],
        negative_prompt=[negative_prompt] * len(pairs) if negative_prompt else None,
        height=height * pipe.vae_scale_factor,
        width=width * pipe.vae_scale_factor,
        latents=noise.to(pipe.unet.dtype),
        # Samplers that add noise on the way go on with each picture's own generator.
        generator=generators,
        num_inference_steps=steps,
        guidance_scale=guidance,
    )
    return output.images
