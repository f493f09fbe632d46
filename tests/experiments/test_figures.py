"""The pictures of a comparison: their numbers by hand, and which pictures a sheet shows."""

import csv
import io
from pathlib import Path

import numpy
import pytest
import yaml
from PIL import Image

from cns_lightning.experiments.comparison import CLASS_WORD, Run
from cns_lightning.experiments.figures import (
    best_line,
    curves_as_csv,
    curves_of,
    draw_confusion,
    draw_curves,
    draw_table,
    picture_rows,
)
from cns_lightning.experiments.scoring_options import ScoringOptions
from cns_lightning.experiments.table import CONFUSION_COLUMNS, COSTS, QUALITY
from tests.runs.learning import write_sequence

MATRIX = [[0.8], [0.5, 0.6], [0.7, 0.2, 0.9]]


def test_curves_by_hand() -> None:
    first, second, third = curves_of(MATRIX)
    assert first == [0.8, 0.0, 0.0]
    assert second == pytest.approx([0.55, 0.3, 0.3])
    # The first concept fell from 0.8 to 0.7, the second from 0.6 to 0.2.
    assert third == pytest.approx([0.6, 0.25, 0.25])


def test_csv_has_means_and_spread_over_runs() -> None:
    other = [[score + 0.1 for score in row] for row in MATRIX]
    written = curves_as_csv({"cns": [curves_of(MATRIX), curves_of(other)], "alone": [curves_of(MATRIX)]}).decode()
    rows = list(csv.DictReader(io.StringIO(written)))
    assert [row["method"] for row in rows] == ["cns"] * 3 + ["alone"] * 3
    assert float(rows[2]["clip_i"]) == pytest.approx(0.65)
    assert float(rows[2]["clip_i_spread"]) == pytest.approx(0.1 / 2**0.5)
    assert float(rows[2]["forgetting_from_best_spread"]) == pytest.approx(0.0, abs=1e-9)


def _row(method: str, value: float | None) -> dict[str, object]:
    names = [name for each in QUALITY for name in (each, f"{each}_spread")]
    return {"method": method, "runs": 1, **dict.fromkeys([*names, *COSTS], value)}


def test_the_best_method_is_no_bound() -> None:
    rows = [_row("cns", 0.5), _row("fine_tuning", 0.4), _row("alone", 0.9), _row(CLASS_WORD, 0.1)]
    assert best_line(rows, "single_clip_i", "up") == 0
    assert best_line(rows, "forgetting_from_best", "down") == 1
    assert best_line([_row("cns", None)], "single_clip_i", "up") is None


def test_drawings_are_pictures_and_the_same_again() -> None:
    rows = [_row("cns", 0.5), _row(CLASS_WORD, None)]
    curves = {"cns": [curves_of(MATRIX)]}
    names = dict.fromkeys(CONFUSION_COLUMNS, "<new1>")
    # The second method is one whose gallery lacks a label.
    shares = [{**names, "method": "cns", "share": 0.9}, {**names, "method": "cns", "seen_as": "any cat", "share": 0.1}]
    shares.append({**names, "method": "alone", "share": 1.0})
    drawings = (lambda: draw_table(rows), lambda: draw_curves(curves), lambda: draw_confusion(shares))
    for drawn, again in ((draw(), draw()) for draw in drawings):
        assert drawn == again
        pixels = numpy.asarray(Image.open(io.BytesIO(drawn)).convert("L"))
        assert min(pixels.shape) > 100
        assert pixels.min() < 100 < pixels.max()


def test_sheet_shows_the_first_prompt_of_each_concept_after_the_last_stage(tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path / "two", ["cat", "dog"])
    content = yaml.safe_load(sequence.read_text("utf-8"))
    content["prompts"]["single"] = ["a <new2> dog", "a <new1> cat", "a <new1> cat asleep"]
    sequence.write_text(yaml.safe_dump(content), "utf-8")
    colours = {"bound": (250, 0, 0), "cns": (0, 250, 0)}
    for number in range(3):
        for folder, colour in (("class", "bound"), ("run/evaluation/images/stage-01", "cns")):
            path = tmp_path / folder / f"single-0{number}-seed-0.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            shade = tuple(min(255, channel + number) for channel in colours[colour])
            Image.new("RGB", (128, 128), shade).save(path)
    run = Run("cns", "sequence", 0, tmp_path / "run", str(sequence), (), (), ScoringOptions())
    prompts, rows = picture_rows([run], tmp_path / "class")
    # The first concept's first prompt is number 1, the second's number 0; number 2 is not shown.
    assert prompts == ["a <new1> cat", "a <new2> dog"]
    assert [label for label, _ in rows] == ["the user's picture", CLASS_WORD, "CNS"]
    shades = [[picture.getpixel((0, 0)) for picture in pictures] for _, pictures in rows[1:]]
    assert shades == [[(251, 1, 1), (250, 0, 0)], [(1, 251, 1), (0, 250, 0)]]
