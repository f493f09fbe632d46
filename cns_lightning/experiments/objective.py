"""What a search chooses by: how much of what can be reached a setting covers, at its best measured number of steps."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Figures = Mapping[str, Mapping[str, float]]
    Curve = Sequence[Mapping[str, Any]]


def covered(point: Figures, start: Figures, reach: Figures) -> float:
    """Computes the share of the way from what the class word scores to what could be reached.

    For one concept and for several: the share of the way in CLIP-I times the share of CLIP-T that is there, both at
    most 1, so that neither pictures that repeat the photos nor such as show nothing of a concept gain; then the mean.
    That of several counts as far as the pictures show all that they were asked for: concepts that melt into one thing
    are like the photos of each. Pictures of the class word come to 0.

    Args:
        point: CLIP-I and CLIP-T for ``single`` and ``several``, of a model.
        start: the same of the class word on the base model.
        reach: the same of pictures as they should be.
    """
    shares = []
    for group, least in start.items():
        best = reach[group]
        image, there = point[group]["clip_i"] - least["clip_i"], best["clip_i"] - least["clip_i"]
        # Where the class word is as like the photos as can be, or no text fits, there is nothing to gain.
        way = min(1.0, image / there) if there > 0 else 1.0
        text = point[group]["clip_t"] / best["clip_t"] if best["clip_t"] > 0 else 1.0
        # A judge may miss a thing in pictures that are as they should be.
        whole = point[group].get("all_there", 1.0) / (best.get("all_there") or 1.0)
        shares.append(way * max(0.0, min(1.0, text)) * min(1.0, whole))
    return statistics.fmean(shares)


def usual_reach(start: Figures, photos: float) -> dict[str, dict[str, float]]:
    """Returns what could be reached where nobody knows what perfect pictures score.

    That is the likeness of the photos among themselves, and the class word's CLIP-T.

    Args:
        start: CLIP-I and CLIP-T of the class word, for ``single`` and ``several``.
        photos: CLIP-I of the user's photos among themselves.
    """
    return {group: {"clip_i": photos, "clip_t": least["clip_t"]} for group, least in start.items()}


def best_point(runs: Sequence[tuple[Curve, Figures, Figures]], at_end: bool) -> tuple[float, int]:
    """Returns what a setting covers at the number of steps at which it covers most, a mean over runs, and that number.

    Only what was measured counts, nothing between two points.

    Args:
        runs: curve, class word's figures and what could be reached of each; steps that a curve lacks do not count.
        at_end: whether the last point alone counts. Where rates fall, or the token learns first, a snapshot is not
            what a shorter run would learn.
    """
    by_steps = [{int(point["steps"]): point for point in curve} for curve, _, _ in runs]
    steps = sorted(set.intersection(*map(set, by_steps)))
    found = []
    for each in steps[-1:] if at_end else steps:
        values = [covered(points[each], start, reach) for points, (_, start, reach) in zip(by_steps, runs, strict=True)]
        found.append((statistics.fmean(values), each))
    return max(found, key=lambda each: (each[0], -each[1]))
