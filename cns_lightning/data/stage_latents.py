"""What a stage trains on, and what encoding it takes: handed to the data module once, so that it never looks up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cns_lightning.sequences.sequence import Concept


@dataclass(frozen=True)
class RunContext:
    """What a run gives to its data module.

    Attributes:
        encode: pixels in [-1, 1], shape (pictures, 3, height, width), to scaled latents, float32, on the CPU.
        resolution: side of the pictures that the base model draws, in pixels.
        latent_scale: pixels a latent, of a side.
        timesteps: number of noise levels.
        names_class_word: whether the method's prompts say the class word beside the token.
        class_latents: encoded pictures of a concept's class; None for methods without prior preservation. All ranks
            must call it.
        position: stage that was started last, and the optimizer steps applied in it.
        next_stage: stage that the next loader is for.
        rank, ranks: this process, and how many there are.
        accumulate: batches of an optimizer step.
        is_pinned: whether batches go to a GPU.
    """

    encode: Callable[[Tensor], Tensor]
    resolution: int
    latent_scale: int
    timesteps: int
    names_class_word: bool
    class_latents: Callable[[Concept], Tensor] | None
    position: Callable[[], tuple[int, int]]
    next_stage: Callable[[], int]
    rank: int = 0
    ranks: int = 1
    accumulate: int = 1
    is_pinned: bool = False


@dataclass(frozen=True)
class StageLatents:
    """The encoded pictures of a stage.

    Attributes:
        latents: shape (pictures, variants, channels, height, width), float32, scaled.
        valid: shape (pictures, variants, 1, height, width), float32.
        prompts: prompts by picture and variant.
        paths: files of the pictures.
        prior: encoded pictures of the class, as ``latents`` without variants; None without prior preservation.
        prior_prompt: prompt of all of them.
        weights: how much cells count in the loss, as ``valid``, with a mean of 1 over the valid ones; None where no
            picture has a mask, and all count alike.
    """

    latents: Tensor
    valid: Tensor
    prompts: list[list[str]]
    paths: list[Path]
    prior: Tensor | None = None
    prior_prompt: str = ""
    weights: Tensor | None = None
