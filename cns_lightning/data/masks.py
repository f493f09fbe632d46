"""Masks: which part of a picture is to be learned, from a file beside it or from its alpha channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image
from torch.nn import functional

from cns_lightning.data.images import read_alpha, read_grey
from cns_lightning.errors import UserError
from cns_lightning.ranges import Probability
from cns_lightning.sequences.sequence import masks_beside

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from cns_lightning.data.augmentation import Augmented

BLACK = 1
"""Brightest grey, of 255, that still is black: masks of zeros and ones look black to everybody but their program."""
DIGITS = 6
"""Digits of the factor that balances weights: sums of many numbers end otherwise on another number of threads."""


@dataclass(frozen=True)
class Masks:
    """How much the parts of a picture count in the loss.

    Args:
        outside: weight of what a mask leaves out, where it is black; white counts 1, grey in between. At 0 what is
            drawn around the concept would be left to itself, in a stage that moves all of the picture; 1 reads no
            masks.
        alpha: whether the alpha channel is the mask of a picture that has no other one and is not opaque all over.

    Source: OneTrainer's unmasked weight is 0.1 as well; the masked loss of kohya's sd-scripts has 0.
    """

    outside: Probability = 0.1
    alpha: bool = True

    def of(self, picture: Path, size: tuple[int, int]) -> Image.Image | None:
        """Reads the mask of a picture, grey, of the picture's size; None where all of it counts.

        Args:
            picture: file of the picture.
            size: its width and height in pixels, upright.

        Raises:
            UserError: if the mask cannot be read, is of another shape than the picture, or leaves all of it out.
        """
        if self.outside == 1:
            return None
        beside = masks_beside(picture)
        if len(beside) > 1:
            problem = f"is a mask of {picture.name}, and so is {beside[1].name}"
            raise UserError(str(beside[0]), problem, "Keep one of them")
        if beside:
            return _fitted(beside[0], picture, size)
        mask = read_alpha(picture) if self.alpha else None
        if mask is not None and _is_black(mask):
            remedy = "Take it out, or have it read as opaque by --data.masks.alpha false"
            raise UserError(str(picture), "is transparent all over, so that nothing of it would be learned", remedy)
        return mask

    def takes_alpha_of(self, picture: Path) -> bool:
        """Returns whether the alpha channel of a picture is its mask; raises what `read_alpha` raises."""
        return self.alpha and self.outside < 1 and not masks_beside(picture) and read_alpha(picture) is not None


def _is_black(mask: Image.Image) -> bool:
    _, brightest = mask.getextrema()
    return brightest <= BLACK  # pyright: ignore[reportOperatorIssue] - one channel


def _fitted(path: Path, picture: Path, size: tuple[int, int]) -> Image.Image:
    mask = read_grey(path)
    if not _has_shape(mask.size, size):
        problem = f"is {mask.width}x{mask.height} pixels, and {picture.name} is {size[0]}x{size[1]}"
        remedy = "Give the mask the shape of the picture; smaller or larger is fine"
        if _has_shape(mask.size, (size[1], size[0])):
            remedy = "Turn the mask as the picture is shown, not as the camera stored it"
        raise UserError(str(path), problem, remedy)
    if _is_black(mask):
        problem = f"is black all over, so that nothing of {picture.name} would be learned"
        raise UserError(str(path), problem, "Paint white what is to be learned, or remove the mask")
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def _has_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Returns whether two sizes are of one shape, up to a pixel of the smaller: they are rounded."""
    (width, height), (other_width, other_height) = sorted((one, other))
    return abs(height - other_height * width / other_width) <= 1


def latent_weights(variant: Augmented, factor: int, outside: float) -> Tensor:
    """Returns how much the latent cells of a variant count, shape (1, height, width), float32; 1 without a mask.

    A cell counts by the mean of its pixels, as in the masked loss of kohya's sd-scripts.

    Args:
        variant: variant of a picture, with its mask.
        factor: pixels a cell is wide.
        outside: weight of what the mask leaves out.
    """
    covered = (variant.mask if variant.mask is not None else variant.valid.new_ones(variant.valid.shape))[None]
    # In this form exactly 1 where the mask is white.
    return 1 - (1 - outside) * (1 - functional.avg_pool2d(covered, factor)[0])


def balanced_weights(weights: Tensor, valid: Tensor) -> Tensor:
    """Scales the weights of a stage to a mean of 1 over its valid cells.

    So the loss keeps its size, and with it the balance with regularizers and with pictures of the class; a variant that
    shows little of what is to be learned counts as little as it shows.

    Args:
        weights: shape (pictures, variants, 1, height, width), float32.
        valid: 1 where a cell belongs to the picture and 0 in the margins, same shape.
    """
    counted = float((weights.double() * valid).sum())
    return weights if counted == 0 else weights * round(float(valid.double().sum()) / counted, DIGITS)


def masks_in_words(folder: Path, has_mask: list[bool], masks: Masks) -> list[str]:
    """Returns a sentence that says that pictures of a folder have masks; none where none has."""
    count = sum(has_mask)
    if not count:
        return []
    which = f"{count} of {len(has_mask)} pictures have a mask, a file beside them or their alpha channel"
    return [f"{folder}: {which}; what it leaves out counts {masks.outside:g} (data.masks)"]
