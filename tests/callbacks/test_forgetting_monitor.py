"""The monitor draws what `test` would draw, in its places, while a run is going on."""

import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import yaml
from PIL import Image

from cns_lightning.cli.main import main
from cns_lightning.storage import read_json
from tests.runs.learning import arguments, write_sequence
from tests.runs.processes import two_processes
from tests.runs.stop_at import CALLBACK, StopAt

PROMPTS = {
    "single": ["a <new1> cat", "a photo of a <new2> dog"],
    "double": ["a <new1> cat and a <new2> dog"],
    "triple": [],
}


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    path = write_sequence(tmp_path / "two", ["cat", "dog"])
    content = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**content, "prompts": PROMPTS}), "utf-8")
    return path


def _times(run: Path) -> dict[str, int]:
    images = run / "evaluation" / "images"
    return {str(path.relative_to(images)): path.stat().st_mtime_ns for path in images.rglob("*.png")}


@pytest.mark.parametrize("method", ["cns", "mix_of_show"])
def test_evaluation_finds_the_pictures_of_the_monitor(
    method: str, sequence: Path, tiny_base_model: Path, tiny_judge: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = ("--monitor.pictures", "1", "--monitor.look_alikes", "1", "--monitor.judge", str(tiny_judge))
    assert main(arguments(tiny_base_model, sequence, run, *more, method=method)) == 0
    drawn = _times(run)
    assert set(drawn) == {
        "stage-00/single-00-seed-0.png", "stage-01/single-00-seed-0.png", "stage-01/single-01-seed-0.png",
        "stage-01/double-00-seed-0.png", "look-alikes/lookalike-00-seed-0.png", "look-alikes/lookalike-01-seed-0.png",
    }  # fmt: skip
    seen: dict[str, Any] = read_json(run / "evaluation" / "monitor.json")
    command = ["test", "--run", str(run), "--judge", str(tiny_judge), "--device", "cpu"]
    command += ["--pictures", "1", "--look-alikes", "1"]
    assert main(command) == 0
    assert {name: time for name, time in _times(run).items() if name in drawn} == drawn
    scores = read_json(run / "evaluation" / "scores.json")
    for row, expected in zip(seen["stages"], scores["matrix"], strict=True):
        assert row["clip_i"] == pytest.approx(expected, abs=1e-6)
    # The judge reads other prompts beside these, and matrices of another size round differently on some machines.
    assert seen["stages"][1]["groups"] == {
        group: pytest.approx(values, abs=1e-6) for group, values in scores["groups"].items()
    }
    assert set(seen["stages"][0]["groups"]) == {"single"}
    assert seen["forgetting_from_learned"] == pytest.approx(scores["forgetting_from_learned"], abs=1e-6)
    for row, expected in zip(seen["stages"], scores["identity_by_stage"], strict=True):
        of_stage = {name: value for name, value in row["identity"].items() if name != "confusion"}
        assert of_stage == expected
    assert seen["scored_with"]["judge_sha256"] == scores["scored_with"]["judge_sha256"]
    said = (run / "log.txt").read_text("utf-8")
    assert "CLIP-I after stage 1: <new1>" in said
    assert f"identity top-1 {seen['stages'][1]['identity']['top1']:.3f}" in said
    # What was drawn in a run that has learned, with the pretrained weights, is what the base model draws.
    alikes = sorted((run / "evaluation" / "images" / "look-alikes").glob("*.png"))
    before = [numpy.asarray(Image.open(path)).astype(int) for path in alikes]
    for path in alikes:
        path.unlink()
    assert main([*command, "--share", "0/1"]) == 0
    for path, pixels in zip(alikes, before, strict=True):
        assert abs(numpy.asarray(Image.open(path)).astype(int) - pixels).max() <= 1


def test_rows_that_were_scored_otherwise_are_dropped(
    sequence: Path, tiny_base_model: Path, tiny_judge: Path, tmp_path: Path
) -> None:
    both = yaml.safe_load(sequence.read_text("utf-8"))
    only = {"single": PROMPTS["single"][:1], "double": [], "triple": []}
    for name, judge in (("same", tiny_judge), ("other", tmp_path / "judge")):
        sequence.write_text(yaml.safe_dump({**both, "concepts": both["concepts"][:1], "prompts": only}), "utf-8")
        more = ("--monitor.pictures", "1", "--monitor.judge")
        assert main(arguments(tiny_base_model, sequence, tmp_path / name, *more, str(tiny_judge))) == 0
        sequence.write_text(yaml.safe_dump(both), "utf-8")
        shutil.copytree(tiny_judge, tmp_path / "judge", dirs_exist_ok=True)
        assert main(arguments(tiny_base_model, sequence, tmp_path / name, *more, str(judge))) == 0
    rows = {name: read_json(tmp_path / name / "evaluation" / "monitor.json") for name in ("same", "other")}
    assert [row["stage"] for row in rows["same"]["stages"]] == [0, 1]
    assert "forgetting_from_best" in rows["same"]
    assert [row["stage"] for row in rows["other"]["stages"]] == [1]
    assert "forgetting_from_best" not in rows["other"]


def test_a_stopped_run_ends_with_the_same_rows(
    sequence: Path, tiny_base_model: Path, tiny_judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (CALLBACK, "--monitor.pictures", "1", "--monitor.judge", str(tiny_judge))
    whole, other = (arguments(tiny_base_model, sequence, tmp_path / name, *more) for name in "ab")
    assert main(whole) == 0
    monkeypatch.setattr(StopAt, "step", 5)
    with pytest.raises(SystemExit):
        main(other)
    assert len(read_json(tmp_path / "b" / "evaluation" / "monitor.json")["stages"]) == 1
    monkeypatch.setattr(StopAt, "step", None)
    assert main(other) == 0
    paths = [tmp_path / name / "evaluation" / "monitor.json" for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_two_processes_share_the_drawing(
    sequence: Path, tiny_base_model: Path, tiny_judge: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = ("--monitor.pictures", "2", "--monitor.judge", str(tiny_judge))
    assert two_processes(tiny_base_model, sequence, run, "0:0:SIGTERM", *more)[0] == 0
    rows = read_json(run / "evaluation" / "monitor.json")["stages"]
    # Without look-alikes the only photos after the first stage are those of the one concept.
    assert rows[0]["identity"]["top1"] == 1.0
    assert [len(row["clip_i"]) for row in rows] == [1, 2]
    assert len(_times(run)) == 2 + 6


def test_a_wrong_judge_stops_before_the_first_step(
    sequence: Path, tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    more = ("--monitor.pictures", "1", "--monitor.judge", str(tmp_path / "nobody"))
    assert main(arguments(tiny_base_model, sequence, run, *more)) == 2
    assert "monitor.judge: " in capsys.readouterr().err
    assert not (run / "checkpoints" / "last.ckpt").exists()
