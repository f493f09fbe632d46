"""Where a search goes on from its best setting: beyond the edge of what was tried, else between neighbours.

Only values are looked at, and the same values give the same settings: a search that is called again takes the same way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Setting = dict[str, Any]
    Grid = Mapping[str, Sequence[Any]]

SERIES = ((1, 3), (1, 2, 5))
"""First digits of the series that people write rates in; a grid that is a part of one goes on in it."""
DIGITS = 3
"""To which new values are rounded."""


def axes_of(grid: Grid) -> list[str]:
    """Lists the keys of a grid that can be widened: those with two or more numbers, all above 0."""
    return [key for key, values in grid.items() if all(map(_is_positive, values)) and len(set(values)) > 1]


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def beyond(values: Sequence[float], outermost: float, upwards: bool) -> float | None:
    """Returns the value that continues a grid's values; None where there is none above 0.

    In the series that the grid is a part of, otherwise by the ratio of its last two values on that side.

    Args:
        values: values of the grid, two or more, above 0; whole numbers alone are continued by whole numbers.
        outermost: the value to go on from: the last one on that side, of the grid or added since.
        upwards: whether to go to larger values.
    """
    ordered = sorted(set(values))
    for digits in SERIES:
        places = [_place(value, digits) for value in ordered]
        start = _place(outermost, digits)
        if start is not None and all(place is not None for place in places):
            whole = [place for place in places if place is not None]
            if whole == list(range(whole[0], whole[0] + len(whole))):
                return _as_the_grid(_value(start + (1 if upwards else -1), digits), values)
    ratio = ordered[-1] / ordered[-2] if upwards else ordered[0] / ordered[1]
    return _as_the_grid(outermost * ratio, values)


def _place(value: float, digits: Sequence[int]) -> int | None:
    """Returns the place of a value in a series, counted from 1; None if it is not in it."""
    power = math.floor(math.log10(value) + 1e-9)
    first = value / 10.0**power
    for number, digit in enumerate(digits):
        if math.isclose(first, digit, rel_tol=1e-6):
            return power * len(digits) + number
    return None


def _value(place: int, digits: Sequence[int]) -> float:
    power, number = divmod(place, len(digits))
    return digits[number] * 10.0**power


def _as_the_grid(value: float, values: Sequence[Any]) -> float | None:
    if all(isinstance(each, int) for each in values):
        return round(value) if round(value) > 0 else None
    return float(f"{value:.{DIGITS}g}")


def edges_of(grid: Grid, tried: Sequence[Setting], best: Setting) -> list[tuple[str, float]]:
    """Lists where a setting lies at the edge of what was tried and values go on: key, and the next value.

    Args:
        grid: values of the first grid by key.
        tried: all settings so far.
        best: one of them.
    """
    found = []
    for key in axes_of(grid):
        known = sorted({setting[key] for setting in tried})
        for upwards, outermost in ((False, known[0]), (True, known[-1])):
            following = beyond(grid[key], outermost, upwards) if best[key] == outermost else None
            if following is not None and following not in known:
                found.append((key, following))
    return found


def _candidates(grid: Grid, tried: Sequence[Setting], best: Setting) -> list[Setting]:
    """Lists the neighbours of a setting: beyond the edges, then at values that are there, then between them."""
    there, between = [], []
    for key in axes_of(grid):
        known = sorted({setting[key] for setting in tried})
        place = known.index(best[key])
        for neighbour in [*known[max(0, place - 1) : place], *known[place + 1 : place + 2]]:
            there.append({**best, key: neighbour})
            middle = _as_the_grid(math.sqrt(best[key] * neighbour), grid[key])
            if middle is not None and middle not in known:
                between.append({**best, key: middle})
    return [*({**best, key: value} for key, value in edges_of(grid, tried, best)), *there, *between]


def next_settings(grid: Grid, tried: Sequence[Setting], best: Setting, count: int) -> list[Setting]:
    """Returns the settings that a method tries next, each differing from its best one in a single value.

    First values beyond the edges at which the best one lies, then values that were tried with others only, then the
    geometric means of the best one's value and its neighbours.

    Args:
        grid: values of the first grid by key.
        tried: all settings so far.
        best: the best of them.
        count: how many are wanted; fewer are returned where rounding leaves no others.
    """
    found: list[Setting] = []
    while len(found) < count:
        known = [*tried, *found]
        fresh = [each for each in _candidates(grid, known, best) if each not in known]
        if not fresh:
            break
        found += fresh[: count - len(found)]
    return found
