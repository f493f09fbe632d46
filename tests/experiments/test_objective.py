"""What a search chooses by, by hand."""

from typing import Any

import pytest

from cns_lightning.experiments.objective import best_point, covered, usual_reach


def _point(single: tuple[float, float], several: tuple[float, float], steps: int = 0) -> dict[str, Any]:
    groups = {"single": single, "several": several}
    return {"steps": steps, **{name: {"clip_i": image, "clip_t": text} for name, (image, text) in groups.items()}}


START = {name: each for name, each in _point((0.2, 0.8), (0.1, 0.8)).items() if name != "steps"}
REACH = {"single": {"clip_i": 0.6, "clip_t": 0.6}, "several": {"clip_i": 0.5, "clip_t": 0.4}}


def test_the_class_word_covers_nothing_and_perfect_pictures_all() -> None:
    assert covered(START, START, REACH) == 0
    assert covered(REACH, START, REACH) == 1


def test_more_than_perfect_is_no_gain_and_lost_words_count() -> None:
    assert covered(_point((0.9, 0.7), (0.5, 0.4)), START, REACH) == 1
    assert covered(_point((0.4, 0.6), (0.3, 0.2)), START, REACH) == pytest.approx((0.5 + 0.5 * 0.5) / 2)
    assert covered(_point((0.1, 0.6), (0.5, 0.4)), START, REACH) == pytest.approx((-0.25 + 1) / 2)
    alone = {"single": START["single"]}
    assert covered(_point((0.4, 0.6), (0.0, 0.0)), alone, REACH) == pytest.approx(0.5)


def test_where_nothing_is_to_be_gained_the_other_figure_decides() -> None:
    flat = {"single": {"clip_i": 0.2, "clip_t": 0.8}}
    assert covered(_point((0.1, 0.4), (0.0, 0.0)), {"single": START["single"]}, flat) == pytest.approx(0.5)
    wordless = {"single": {"clip_i": 0.6, "clip_t": -0.1}}
    assert covered(_point((0.4, -0.3), (0.0, 0.0)), {"single": START["single"]}, wordless) == pytest.approx(0.5)


def test_without_perfect_pictures_the_photos_and_the_class_word_are_the_bound() -> None:
    assert usual_reach(START, 0.7) == {
        "single": {"clip_i": 0.7, "clip_t": 0.8}, "several": {"clip_i": 0.7, "clip_t": 0.8},
    }  # fmt: skip


def test_the_best_measured_steps_are_those_of_the_mean_over_runs() -> None:
    early, late = _point((0.4, 0.6), (0.3, 0.4), 10), _point((0.5, 0.6), (0.4, 0.4), 20)
    worse = _point((0.3, 0.6), (0.1, 0.4), 20)
    assert best_point([([early, late], START, REACH)], at_end=False) == (pytest.approx(0.75), 20)
    runs = [([early, late], START, REACH), ([early, worse], START, REACH)]
    assert best_point(runs, at_end=False) == (pytest.approx(0.5), 10)
    assert best_point(runs, at_end=True)[1] == 20
    assert best_point([([early, {**early, "steps": 20}], START, REACH)], at_end=False)[1] == 10, "fewer at the same"
