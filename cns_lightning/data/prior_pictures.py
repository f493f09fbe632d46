"""How many pictures of a concept's class hold it to what the pretrained model knew of the class."""

from __future__ import annotations

from dataclasses import dataclass

from cns_lightning.ranges import Amount, Count, NonNegative


@dataclass(frozen=True)
class PriorPictures:
    """How many pictures of the class a method with prior preservation gets; others draw none.

    Attributes:
        pictures: number of pictures of each class; 0 draws none.
        steps: number of steps of the sampler.
        guidance: scale of classifier-free guidance.

    Source: Custom Diffusion (arXiv 2212.04488), generated regularization pictures; docs/methods.md 4.2.
    """

    pictures: Amount = 0
    steps: Count = 50
    guidance: NonNegative = 6.0
