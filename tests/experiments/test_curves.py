"""The curves of a comparison: means over runs by hand, and a drawing that is the same again."""

import io
from pathlib import Path

import numpy
import pytest
from PIL import Image

from cns_lightning.experiments.comparison import CLASS_WORD, Run
from cns_lightning.experiments.curves import draw, mean_points, rows_of_curves, with_headline
from cns_lightning.experiments.scoring_options import ScoringOptions
from cns_lightning.storage import write_json


def _point(image: float, text: float) -> dict[str, dict[str, float]]:
    return {"single": {"clip_i": image, "clip_t": text}, "several": {"clip_i": image / 2, "clip_t": text}}


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Returns two runs of a method, of which one has a step more, and one of another without a curve."""
    curves = [[(10, 0.4, 0.6), (20, 0.5, 0.5)], [(10, 0.5, 0.7), (15, 0.9, 0.1), (20, 0.7, 0.4)], []]
    found = []
    for number, (curve, method) in enumerate(zip(curves, ("cns", "cns", "alone"), strict=True)):
        folder = tmp_path / str(number)
        points = [{"steps": steps, **_point(image, text)} for steps, image, text in curve]
        write_json(folder / "evaluation" / "scores.json", {"curve": points} if points else {})
        found.append(Run(method, "set", number, folder, "set.yaml", (), (), ScoringOptions()))
    return found


def test_means_are_of_the_steps_that_all_runs_have(runs: list[Run]) -> None:
    bound = {"set": {"curve_start": _point(0.2, 0.8)}}
    rows = rows_of_curves(runs, bound)
    assert len(rows) == 2 * (2 + 3 + 1)
    means = mean_points(rows, "single")
    assert means["cns"] == [
        (10, pytest.approx(0.65), pytest.approx(0.45)),
        (20, pytest.approx(0.45), pytest.approx(0.6)),
    ]
    assert means[CLASS_WORD] == [(0, 0.8, 0.2)]
    assert "alone" not in means
    drawn = draw(rows)
    assert drawn == draw(rows)
    pixels = numpy.asarray(Image.open(io.BytesIO(drawn)).convert("L"))
    assert min(pixels.shape) > 100
    assert pixels.min() < 100 < pixels.max()


def test_headline_is_added_to_the_rows_of_runs_with_a_curve(runs: list[Run]) -> None:
    rows = with_headline([{"seed": run.seed} for run in runs], runs, {"set": {"curve_start": _point(0.2, 0.8)}})
    # 0.72 of CLIP-T lies 0.08 of the 0.2 to the first point.
    assert rows[0]["single_clip_i_at_90"] == pytest.approx(0.2 + 0.4 * 0.2)
    assert rows[0]["multi_clip_i_at_90"] == pytest.approx(0.1 + 0.4 * 0.1)
    assert rows[2] == {"seed": 2}
    assert with_headline([{}], runs[:1], {"set": {}}) == [{}]
