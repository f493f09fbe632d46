"""A batch of a stage whose noise and timesteps never change: its loss falls without jumps while the stage learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.determinism import normal

if TYPE_CHECKING:
    from cns_lightning.data.stage_latents import StageLatents


def fixed_batch(encoded: StageLatents, count: int, timesteps: int, seed: int, stage: int) -> dict[str, Any]:
    """Returns samples of a stage's pictures in turn, at timesteps spread evenly over the noise schedule.

    Args:
        encoded: pictures of the stage.
        count: number of samples.
        timesteps: of the noise schedule.
        seed: base random seed.
        stage: number of the stage, from 0.
    """
    pictures = [number % len(encoded.latents) for number in range(count)]
    latents = encoded.latents[pictures, 0]
    weights = {} if encoded.weights is None else {"weights": encoded.weights[pictures, 0]}
    return weights | {
        "latents": latents,
        "valid_region": encoded.valid[pictures, 0],
        "noise": torch.stack([normal(latents.shape[1:], seed, "fixed_noise", stage, each) for each in range(count)]),
        "timestep": torch.tensor([int((number + 0.5) * timesteps / count) for number in range(count)]),
        "prompt": [encoded.prompts[picture][0] for picture in pictures],
    }
