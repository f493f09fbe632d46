"""Pictures for prompts and seeds, and sheets of pictures to look at."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw, ImageFont

from cns_lightning.diffusion.regions import Region, regional_attention
from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from diffusers import DiffusionPipeline

READABLE = 128
"""Pictures of a sheet are enlarged by whole numbers until they are at least this wide, in pixels."""
INK, PAPER = (40, 40, 46), (255, 255, 255)


def check_steps(scheduler: Any, steps: int, where: str) -> None:
    """Refuses more steps of the sampler than the noise schedule has timesteps.

    Args:
        scheduler: the base model's scheduler.
        steps: sampling steps asked for.
        where: what named the steps, for the message.

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

    Returns:
        The pictures of the first prompt, then those of the second, and so on.
    """
    return generate_pairs(pipe, list(product(prompts, seeds)), steps, guidance, batch_size, progress, regions)


def generate_pairs(
    pipe: DiffusionPipeline,
    pairs: list[tuple[str, int]],
    steps: int = 25,
    guidance: float = 7.5,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
    regions: Sequence[Region] = (),
) -> list[Image.Image]:
    """Draws one picture for every pair of prompt and seed; see `generate`."""
    shown = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(disable=True)
    pictures: list[Image.Image] = []
    try:
        size = _latent_size(pipe)
        for start in range(0, len(pairs), batch_size):
            with regional_attention(pipe, regions, size, guided=guidance > 1):
                pictures += _draw(pipe, pairs[start : start + batch_size], steps, guidance)
            if progress is not None:
                progress(len(pictures), len(pairs))
    finally:
        pipe.set_progress_bar_config(**shown)
    return pictures


def _latent_size(pipe: Any) -> tuple[int, int]:
    size = pipe.unet.config.sample_size
    return (size, size) if isinstance(size, int) else tuple(size)


def _draw(pipe: Any, pairs: list[tuple[str, int]], steps: int, guidance: float) -> list[Image.Image]:
    channels, (height, width) = pipe.unet.config.in_channels, _latent_size(pipe)
    generators = [torch.Generator().manual_seed(seed) for _, seed in pairs]
    noise = torch.stack([torch.randn(channels, height, width, generator=each) for each in generators])
    output = pipe(
        prompt=[prompt for prompt, _ in pairs],
        height=height * pipe.vae_scale_factor,
        width=width * pipe.vae_scale_factor,
        latents=noise.to(pipe.unet.dtype),
        # Samplers that add noise on the way go on with each picture's own generator.
        generator=generators,
        num_inference_steps=steps,
        guidance_scale=guidance,
    )
    return output.images


def grid(rows: list[list[Image.Image]], row_labels: list[str], column_labels: list[str]) -> Image.Image:
    """Lays pictures out on a sheet with labels at the left and on top.

    Args:
        rows: pictures of one size; rows may be of different lengths.
        row_labels: one a row, wrapped; no room is left for them when all are empty.
        column_labels: at most one a column, wrapped; likewise.

    Returns:
        The sheet, RGB; small pictures are enlarged.
    """
    first = next((picture for row in rows for picture in row), Image.new("RGB", (READABLE, READABLE), PAPER))
    scale = max(1, -(-READABLE // first.width))
    width, height = first.width * scale, first.height * scale
    gap, text_size = max(4, width // 24), max(13, width // 11)
    font = ImageFont.load_default(text_size)
    sides = [_wrapped(label, font, max(width, 10 * text_size)) for label in row_labels]
    tops = [_wrapped(label, font, width) for label in column_labels]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = max((_extent(measure, text, font)[0] for text in sides), default=0)
    top = max((_extent(measure, text, font)[1] for text in tops), default=0)
    left, top = gap + (left + gap if left else 0), gap + (top + gap if top else 0)
    row_height = max([height, *(_extent(measure, text, font)[1] for text in sides)]) + gap
    columns = max((len(row) for row in rows), default=0)
    sheet = Image.new("RGB", (left + columns * (width + gap), top + len(rows) * row_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, text in enumerate(tops[:columns]):
        centre = left + column * (width + gap) + width // 2
        draw.multiline_text((centre, top - gap), text, INK, font, anchor="md", align="center")
    for number, row in enumerate(rows):
        middle = top + number * row_height + height // 2
        if number < len(sides):
            draw.multiline_text((gap, middle), sides[number], INK, font, anchor="lm")
        for column, picture in enumerate(row):
            cell = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            sheet.paste(cell, (left + column * (width + gap), top + number * row_height))
    return sheet


def _extent(draw: ImageDraw.ImageDraw, text: str, font: Any) -> tuple[int, int]:
    if not text:
        return 0, 0
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font)
    return int(right - left) + 1, int(bottom - top) + 1


def _wrapped(text: str, font: Any, width: int) -> str:
    """Breaks a text into lines of at most a width, between words where it can."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return "\n".join(lines)
