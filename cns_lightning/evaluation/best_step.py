"""Which step of a stage is kept: the one most like the concept, of those at which earlier concepts lose nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Candidate:
    """What could be kept of a stage.

    Attributes:
        step: optimizer steps of the stage after which it stood so.
        own: CLIP-I of the stage's concept.
        earlier: CLIP-I of the concepts before it, in learning order.
    """

    step: int
    own: float
    earlier: tuple[float, ...]

    def holds(self, start: Sequence[float], tolerance: float) -> bool:
        """Returns whether no earlier concept is less well drawn than at the stage's start, up to a tolerance."""
        return all(now >= before - tolerance for now, before in zip(self.earlier, start, strict=True))


def best_candidate(candidates: Sequence[Candidate], start: Sequence[float], tolerance: float) -> Candidate:
    """Returns the candidate with the highest CLIP-I of its concept among those that hold the earlier concepts.

    The earliest of several that are equal; the last step where none holds them.

    Args:
        candidates: at least one, in the order of steps.
        start: CLIP-I of the earlier concepts before the stage's first step.
        tolerance: by how much each of them may be lower.
    """
    holding = [each for each in candidates if each.holds(start, tolerance)]
    return max(holding, key=lambda each: (each.own, -each.step)) if holding else candidates[-1]


def mean_likeness(pictures: Tensor, photos: Tensor) -> float:
    """Computes CLIP-I, the mean cosine between every picture and every photo.

    Args:
        pictures: vectors of a judge, shape (pictures, width), unit length.
        photos: the judge's vectors of the photos, shape (photos, width), unit length.
    """
    return float((pictures.double() @ photos.double().T).mean())
