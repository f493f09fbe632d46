"""How alike the user's own photos are: what perfect pictures would reach, and often far below 1."""

from __future__ import annotations

import statistics
from itertools import combinations
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from cns_lightning.sequences.sequence import Concept


def likeness_of_photos(concepts: Sequence[Concept], references: Mapping[str, Tensor]) -> dict[str, Any]:
    """Computes CLIP-I between the photos of each concept, and how far apart the photos of two of one class are.

    Args:
        concepts: concepts of the sequence.
        references: vectors of the photos by token, each (photos, width), unit length; tokens that are missing are not
            learned and do not count.

    Returns:
        ``concepts``, by token the mean cosine between two different photos, None with a single photo; ``clip_i``, the
        mean of these over concepts; and ``apart``, by two tokens of one class word: how much more alike photos are to
        others of their own concept than to the other concept's, summed over both.
    """
    own = {token: _among(photos) for token, photos in references.items()}
    classes = {concept.token: concept.class_word for concept in concepts}
    apart: dict[str, dict[str, float]] = {}
    for one, two in combinations(references, 2):
        first, second = own[one], own[two]
        if classes[one] == classes[two] and first is not None and second is not None:
            across = float((references[one] @ references[two].T).mean())
            apart.setdefault(one, {})[two] = first + second - 2 * across
    known = [value for value in own.values() if value is not None]
    return {"clip_i": statistics.fmean(known) if known else None, "concepts": own, "apart": apart}


def _among(photos: Tensor) -> float | None:
    count = len(photos)
    if count < 2:
        return None
    cosines = photos @ photos.T
    return float((cosines.sum() - cosines.trace()) / (count * (count - 1)))
