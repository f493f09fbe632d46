"""Is one method ahead of another? Differences within pairs of runs that learned the same set from the same seed."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from cns_lightning.experiments.comparison import ALONE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WAYS = {
    "single_clip_i_at_90": "up",
    "multi_clip_i_at_90": "up",
    "single_clip_i": "up",
    "multi_clip_i": "up",
    "single_clip_t": "up",
    "multi_clip_t": "up",
    "identity_top1": "up",
    "forgetting_from_best": "down",
    "drift_clip_t": "up",
}
"""The figures whose differences are taken, and which way is better."""
COLUMNS = ("method", "against", "figure", "pairs", "difference", "spread", "ahead")
OURS = "cns"


def paired_differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Computes how far one method, CNS where it took part and else the first, lies from each of the others.

    Sets differ far more than methods do, so that the spread of a method over sets and seeds says little about who is
    ahead; within a pair the set cancels.

    Args:
        rows: one row per run, from `table.rows_by_run`.

    Returns:
        A row for each other method and figure: the mean ``difference`` over ``pairs`` of runs, its standard deviation
        ``spread`` where there are several, and in how many of them the method is ``ahead``, whichever way is better.
    """
    names = [name for name in dict.fromkeys(row["method"] for row in rows) if name != ALONE]
    if len(names) < 2:
        return []
    method = OURS if OURS in names else names[0]
    found = []
    for other in names:
        if other == method:
            continue
        pairs = _pairs(rows, method, other)
        for figure, way in WAYS.items():
            values = [
                one[figure] - two[figure] for one, two in pairs if one[figure] is not None and two[figure] is not None
            ]
            if values:
                found.append({
                    "method": method,
                    "against": other,
                    "figure": figure,
                    "pairs": len(values),
                    "difference": statistics.fmean(values),
                    "spread": statistics.stdev(values) if len(values) > 1 else None,
                    "ahead": sum(value > 0 if way == "up" else value < 0 for value in values),
                })  # fmt: skip
    return found


def _pairs(
    rows: Iterable[Mapping[str, Any]], method: str, other: str
) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    by_run = {(row["method"], row["set"], row["seed"]): row for row in rows}
    return [
        (row, by_run[other, name, seed])
        for (ours, name, seed), row in by_run.items()
        if ours == method and (other, name, seed) in by_run
    ]
