"""Region control: boxes of a picture that listen to prompts of their own."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cns_lightning.errors import Problems, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

FORM = 'Write left, top, right and bottom as parts of the picture and a prompt: "0,0.2,0.5,1:a <new1> cat"'
NEGATIVE_FORM = 'Write what the box shall not show behind the bar: "0,0.2,0.5,1:a <new1> cat|a dog"'


@dataclass(frozen=True)
class Region:
    """A box and what shall be in it.

    Attributes:
        box: left, top, right, bottom in fractions of the picture, 0 to 1.
        prompt: prompt of the box alone.
        negative_prompt: what the box shall not show; empty for nothing in particular.
    """

    box: tuple[float, float, float, float]
    prompt: str
    negative_prompt: str = ""

    @classmethod
    def read(cls, text: str) -> Region:
        """Reads ``x0,y0,x1,y1:TEXT`` or ``x0,y0,x1,y1:TEXT|NEGATIVE``.

        Raises:
            UserError: if it has another form, leaves the picture, or the box is empty.
        """
        numbers, separator, prompts = text.partition(":")
        prompt, bar, negative_prompt = (part.strip() for part in prompts.partition("|"))
        try:
            left, top, right, bottom = (float(number) for number in numbers.split(","))
        except ValueError:
            raise UserError(f"--region {text!r}", "does not start with four numbers and a colon", FORM) from None
        if not separator or not prompt:
            raise UserError(f"--region {text!r}", "names no prompt after the box", FORM)
        if bar and not negative_prompt:
            raise UserError(f"--region {text!r}", "names nothing after the bar", NEGATIVE_FORM)
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise UserError(f"--region {text!r}", "is not a box within the picture, which spans 0 to 1", FORM)
        return cls((left, top, right, bottom), prompt, negative_prompt)

    def cells(self, height: int, width: int) -> tuple[slice, slice]:
        """Returns the rows and columns of a feature map that lie wholly in the box; either may be empty."""
        left, top, right, bottom = self.box
        # A box at a third must not lose a row to the rounding of 0.333 * 3.
        rows = slice(math.ceil(top * height - 1e-6), math.floor(bottom * height + 1e-6))
        columns = slice(math.ceil(left * width - 1e-6), math.floor(right * width + 1e-6))
        return rows, columns


def read_regions(given: Sequence[str]) -> list[Region]:
    """Reads every --region.

    Raises:
        UserError: naming every one that cannot be used.
    """
    regions, problems = [], Problems()
    for text in given:
        try:
            regions.append(Region.read(text))
        except UserError as error:
            problems.add(error.where, error.problem, error.remedy)
    problems.raise_if_any()
    return regions


def check_boxes(regions: Sequence[Region], latent_size: tuple[int, int]) -> None:
    """Refuses boxes that would do nothing, as not one cell of the latents lies wholly in them.

    Args:
        regions: the boxes.
        latent_size: height and width of the latents.

    Raises:
        UserError: naming every one of them.
    """
    height, width = latent_size
    problems = Problems()
    for region in regions:
        rows, columns = region.cells(height, width)
        if rows.stop <= rows.start or columns.stop <= columns.start:
            box = ",".join(f"{number:g}" for number in region.box)
            problem = f"is too small: no cell of the model's {width} x {height} lies wholly in it"
            problems.add(f"--region {box}:{region.prompt}", problem, "Make it larger")
    problems.raise_if_any()


@contextmanager
def regional_attention(
    pipe: Any, regions: Sequence[Region], latent_size: tuple[int, int], guided: bool
) -> Iterator[None]:
    """Lets every cross-attention of a pipeline's UNet answer inside the boxes by the boxes' own prompts.

    Inside a box the attention to the whole prompt is replaced by that to the box's prompt, by the mean where boxes
    overlap; outside it stays as it is. Where a feature map is too coarse for a box, the whole prompt counts. Keys and
    values of the boxes' prompts are computed once in a context, so draw as many pictures in it as there are.

    Args:
        pipe: a Stable Diffusion or SDXL pipeline; it is as before when the context ends.
        regions: the boxes; none changes nothing.
        latent_size: height and width of the latents.
        guided: whether batches hold the unconditional half before the conditional one; a box's negative prompt serves
            the first.

    Source: Mix-of-Show (arXiv 2305.18292) 3.4; docs/methods.md 5.6.
    """
    from diffusers.models.attention_processor import Attention
    from torch import nn

    if not regions:
        yield
        return
    states = [_states(pipe, region, guided) for region in regions]
    width = pipe.unet.config.cross_attention_dim
    attentions = [
        module
        for module in pipe.unet.modules()
        if isinstance(module, Attention)
        and module.is_cross_attention
        and isinstance(module.to_k, nn.Linear)
        and module.to_k.in_features == width
    ]
    stock = [module.processor for module in attentions]
    try:
        for module, processor in zip(attentions, stock, strict=True):
            module.set_processor(_RegionalProcessor(processor, regions, states, latent_size))  # type: ignore[arg-type]
        yield
    finally:
        for module, processor in zip(attentions, stock, strict=True):
            module.set_processor(processor)  # type: ignore[arg-type]


def _states(pipe: Any, region: Region, guided: bool) -> Tensor:
    """Encodes a box's prompts as the pipeline does, shape (1 or 2, tokens, width), the negative one first."""
    import torch

    positive, negative = pipe.encode_prompt(
        prompt=region.prompt,
        device=pipe.unet.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=guided,
        negative_prompt=region.negative_prompt or None,
    )[:2]
    return torch.cat([negative, positive]) if guided else positive


class _RegionalProcessor:
    """Attention processor that runs another one for the whole picture, and attends anew in every box.

    The output projection and everything else of cross-attention act on each place alone, so replacing places of the
    result is replacing what they attended to.
    """

    def __init__(
        self, stock: Any, regions: Sequence[Region], states: Sequence[Tensor], latent_size: tuple[int, int]
    ) -> None:
        self.stock, self.regions, self.states, self.latent_size = stock, regions, states, latent_size
        self.keys_and_values: list[tuple[Tensor, Tensor]] = []

    def __call__(
        self, attention: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **keywords: Any
    ) -> Tensor:
        whole = self.stock(attention, hidden_states, encoder_hidden_states=encoder_hidden_states, **keywords)
        height, width = feature_size(self.latent_size, hidden_states.shape[1])
        if not self.keys_and_values:
            self.keys_and_values = [
                (_heads(attention, attention.to_k(states)), _heads(attention, attention.to_v(states)))
                for states in (each.to(hidden_states.dtype) for each in self.states)
            ]
        queries = hidden_states.unflatten(1, (height, width))
        total, covered = whole.new_zeros(whole.unflatten(1, (height, width)).shape), whole.new_zeros(height, width, 1)
        for region, (keys, values) in zip(self.regions, self.keys_and_values, strict=True):
            rows, columns = region.cells(height, width)
            inside = queries[:, rows, columns]
            if not inside.numel():
                continue
            total[:, rows, columns] += _attended(attention, inside, keys, values)
            covered[rows, columns] += 1
        return whole.where(covered.flatten(0, 1) == 0, (total / covered.clamp_min(1)).flatten(1, 2))


def _heads(attention: Any, states: Tensor) -> Tensor:
    """Splits states by head, (halves, places, width) to (halves, heads, places, width of a head)."""
    return states.unflatten(-1, (attention.heads, -1)).transpose(1, 2)


def _attended(attention: Any, inside: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Returns what the places of a box see of its prompt.

    Args:
        attention: the layer.
        inside: hidden states, shape (halves x pictures, rows, columns, width).
        keys: shape (halves, heads, tokens, width of a head), of one prompt per half.
        values: values of the same prompts, shape of ``keys``.
    """
    from torch.nn import functional

    # All pictures of a half read the same keys: their places stand in one long row.
    queries = _heads(attention, attention.to_q(inside).reshape(len(keys), -1, attention.to_q.out_features))
    seen = functional.scaled_dot_product_attention(queries, keys, values, scale=attention.scale)
    seen = seen.transpose(1, 2).flatten(2).reshape(*inside.shape[:3], -1)
    return attention.to_out[1](attention.to_out[0](seen))


def feature_size(latent_size: tuple[int, int], places: int) -> tuple[int, int]:
    """Returns height and width of the feature map with so many places: the latents', halved as often as needed.

    Raises:
        ValueError: if no halving gives that many places.
    """
    height, width = latent_size
    while height * width > places:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != places:
        raise ValueError(f"latents of {latent_size} have no feature map of {places} places")
    return height, width
