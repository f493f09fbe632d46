"""Paired differences, by hand."""

from typing import Any

import pytest

from cns_lightning.experiments.comparison import ALONE
from cns_lightning.experiments.differences import WAYS, paired_differences


def _run(method: str, name: str, seed: int, likeness: float, lost: float | None) -> dict[str, Any]:
    figures: dict[str, Any] = dict.fromkeys(WAYS)
    return {
        "method": method, "set": name, "seed": seed,
        **figures, "single_clip_i": likeness, "forgetting_from_best": lost,
    }  # fmt: skip


RUNS = [
    _run(ALONE, "one", 0, 0.9, 0.0),
    _run("other", "one", 0, 0.5, 0.03),
    _run("other", "two", 0, 0.2, 0.01),
    _run("cns", "two", 0, 0.3, 0.02),
    _run("cns", "one", 0, 0.4, 0.01),
    _run("cns", "one", 1, 0.8, 0.5),
]


def test_a_pair_is_one_set_and_seed() -> None:
    rows = {row["figure"]: row for row in paired_differences(RUNS)}
    assert set(rows) == {"single_clip_i", "forgetting_from_best"}
    likeness, lost = rows["single_clip_i"], rows["forgetting_from_best"]
    assert (likeness["method"], likeness["against"], likeness["pairs"]) == ("cns", "other", 2)
    assert likeness["difference"] == pytest.approx((-0.1 + 0.1) / 2)
    assert likeness["spread"] == pytest.approx(0.2 / 2**0.5)
    assert (likeness["ahead"], lost["ahead"]) == (1, 1)  # less lost is better
    assert lost["difference"] == pytest.approx((-0.02 + 0.01) / 2)


def test_without_cns_the_first_is_held_against_the_others() -> None:
    others = [_run(name, "one", 0, value, None) for name, value in (("b", 0.5), ("a", 0.5), ("c", 0.1))]
    rows = paired_differences(others)
    assert [(row["method"], row["against"], row["ahead"]) for row in rows] == [("b", "a", 0), ("b", "c", 1)]
    assert rows[0]["spread"] is None
    assert paired_differences(others[:1]) == []
