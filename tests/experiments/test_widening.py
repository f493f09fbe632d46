"""Where a search goes on: beyond an edge, else between neighbours; as many for every method, the same every time."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from cns_lightning.experiments.comparison import Comparison
from cns_lightning.experiments.search import Search, best_of, widened
from cns_lightning.experiments.widening import axes_of, beyond, edges_of, next_settings

GRID = {"rate": [5e-4, 1e-3], "token": [3e-5, 1e-4, 3e-4], "form": ["split", "plain"], "rank": [4]}


def _settings(grid: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


@pytest.mark.parametrize(
    ("values", "upwards", "expected"),
    [
        ([3e-5, 1e-4, 3e-4], True, 1e-3),  # 1, 3, 10
        ([3e-5, 1e-4, 3e-4], False, 1e-5),
        ([2e-4, 5e-4], True, 1e-3),  # 1, 2, 5, 10
        ([1e4, 1e6], True, 1e8),  # its own ratio
        ([0.15, 0.3], False, 0.075),
        ([2, 4], False, 1),
        ([1, 2], False, None),  # no whole number is left
    ],
)
def test_beyond_the_edge(values: list[float], upwards: bool, expected: float | None) -> None:
    assert beyond(values, max(values) if upwards else min(values), upwards) == expected


def test_at_an_edge_the_grid_is_continued_and_inside_it_is_divided() -> None:
    assert axes_of(GRID) == ["rate", "token"]
    tried = _settings(GRID)
    corner = {"rate": 1e-3, "token": 3e-5, "form": "plain", "rank": 4}
    assert edges_of(GRID, tried, corner) == [("rate", 2e-3), ("token", 1e-5)]
    assert next_settings(GRID, tried, corner, 2) == [{**corner, "rate": 2e-3}, {**corner, "token": 1e-5}]
    line = {"token": [1e-4, 2e-4, 5e-4, 1e-3]}
    found = next_settings(line, _settings(line), {"token": 2e-4}, 4)
    assert found[:2] == [{"token": 1.41e-4}, {"token": 3.16e-4}]
    assert len({each["token"] for each in found} | set(line["token"])) == 8
    # A value that was added with others only is a neighbour of its own.
    added = [*tried, {**corner, "rate": 2e-3}]
    inside = {"rate": 1e-3, "token": 1e-4, "form": "split", "rank": 4}
    assert next_settings(GRID, added, inside, 1) == [{**inside, "rate": 2e-3}]


def _search(widen: int) -> Search:
    grids = {"one": {"token": [1e-4, 3e-4, 1e-3, 3e-3]}, "two": {"rate": [1e-3, 3e-3], "token": [1e-4, 3e-4]}}
    settings = {name: _settings(grid) for name, grid in grids.items()}
    return Search(Comparison((), {}), settings, grids, widen, 2, (4,))


def _rows(search: Search, best: dict[str, float]) -> list[dict[str, Any]]:
    """Scores every setting by how near its token's rate is to a method's best, as a search would."""
    rows = [
        {"method": name, "setting": number, "objective": -abs(setting["token"] - best[name])}
        for name, tried in search.settings.items()
        for number, setting in enumerate(tried)
    ]
    return sorted(rows, key=lambda cells: (cells["method"], -cells["objective"], cells["setting"]))


def test_all_methods_try_as_many_in_every_round_and_the_same_again() -> None:
    ways = []
    for _ in range(2):
        search: Search | None = _search(3)
        rounds = []
        while search is not None:
            rounds.append(search)
            assert len({len(tried) for tried in search.settings.values()}) == 1
            assert all(tried.count(setting) == 1 for tried in search.settings.values() for setting in tried)
            search = widened(search, _rows(search, {"one": 3e-4, "two": 1.0}))
        ways.append(rounds)
    assert ways[0] == ways[1]
    last = ways[0][-1]
    assert last.ends == (4, 6, 8, 10)
    assert [last.round_of(number) for number in (0, 3, 4, 5, 6, 9)] == [0, 0, 1, 1, 2, 3]
    # The first stays inside its grid, the second follows its edge, a step a round.
    assert best_of(last, _rows(last, {"one": 3e-4, "two": 1.0}))["two"]["token"] == 1e-2
    assert best_of(last, _rows(last, {"one": 3e-4, "two": 1.0}))["one"] == {"token": 3e-4}


def test_it_ends_when_no_best_is_at_an_edge() -> None:
    search = _search(3)
    inside = replace(search, settings={"one": search.settings["one"]}, grids={"one": search.grids["one"]})
    assert widened(inside, _rows(inside, {"one": 3e-4})) is None
    assert widened(inside, _rows(inside, {"one": 1.0})) is not None
    assert widened(_search(0), _rows(_search(0), {"one": 1.0, "two": 1.0})) is None


def test_lists_and_words_are_no_axes() -> None:
    grid = {"scales": [[1.2, 1.4], [1.0, 1.2]], "form": ["a", "b"], "flag": [True, False], "rate": [1e-3, 1e-4]}
    assert axes_of(grid) == ["rate"]
