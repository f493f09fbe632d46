"""Snapshots of the concepts on the way: they change nothing, survive a stop, follow an undo, and make a curve."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from cns_lightning.cli.main import main
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.methods.discovery import method_configs
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_json
from tests.runs.learning import arguments, learn, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt

METHODS = list(method_configs())
PROMPTS = {
    "single": ["a photo of a <new1> cat", "a photo of a <new2> dog"],
    "double": ["a <new1> cat and a <new2> dog"], "triple": [],
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_what_is_learned_is_the_same_with_and_without(method: str, tiny_base_model: Path, tmp_path: Path) -> None:
    without = learn(method, tiny_base_model, tmp_path / "without")
    run = learn(method, tiny_base_model, tmp_path / "with", "--snapshots.steps", "[1]")
    for name in ("registry/registry.json", "metrics.csv", "samples/stage-1.png"):
        assert (run / name).read_bytes() == (without / name).read_bytes()
    learned, snapshot = NeuronRegistry.load(run / "registry"), NeuronRegistry.load(RunFolder(run).snapshot(1))
    assert (snapshot.tokens, snapshot.fused_by) == (learned.tokens, learned.fused_by)
    for then, now in zip(snapshot.entries, learned.entries, strict=True):
        assert then.sha256 != now.sha256
        assert then.counts == now.counts
    fused = {path.name: path.read_bytes() for path in (run / "fused").glob("*")}
    before, after = load_pipeline(run, snapshot=1), load_pipeline(run)
    tables = [pipe.text_encoder.get_input_embeddings().weight for pipe in (before, after)]  # type: ignore[attr-defined]
    assert not torch.equal(*tables)
    assert {path.name: path.read_bytes() for path in (run / "fused").glob("*")} == fused


def _snapshots(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted((run / "snapshots").rglob("*.*"))}


def test_after_stops_the_snapshots_are_those_of_an_uninterrupted_run(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, more = write_sequence(tmp_path / "sequence", ["cat", "dog"]), ("--snapshots.steps", "[1, 2]", CALLBACK)
    whole, other = (arguments(tiny_base_model, sequence, tmp_path / name, *more) for name in "ab")
    assert main(whole) == 0
    for step in (2, 5):  # right at a snapshot: the step is not taken again
        monkeypatch.setattr(StopAt, "step", step)
        with pytest.raises(SystemExit):
            main(other)
    # The checkpoint is lost and the snapshots are ahead: the stage starts anew.
    for path in (tmp_path / "b" / "checkpoints").glob("[lp]*"):
        path.unlink()
    shutil.copy(tmp_path / "b" / "checkpoints" / "stage-0.ckpt", tmp_path / "b" / "checkpoints" / "last.ckpt")
    monkeypatch.setattr(StopAt, "step", None)
    assert main(other) == 0
    assert len(_snapshots(tmp_path / "a")) == 2 * 3
    assert _snapshots(tmp_path / "b") == _snapshots(tmp_path / "a")


def test_undo_takes_concepts_out_of_the_snapshots_too(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, run = write_sequence(tmp_path / "sequence", ["cat", "dog", "cat"]), tmp_path / "run"
    command = arguments(tiny_base_model, sequence, run, "--snapshots.steps", "[1]", CALLBACK)
    monkeypatch.setattr(StopAt, "step", 8)
    with pytest.raises(SystemExit):
        main(command)
    place = RunFolder(run).snapshot(1)
    assert NeuronRegistry.load(place).tokens == ["<new1>", "<new2>", "<new3>"]
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    assert NeuronRegistry.load(place).tokens == ["<new1>"]
    assert main(["concepts", "--run", str(copy), "--remove", "<new1>"]) == 0
    assert NeuronRegistry.load(RunFolder(copy).snapshot(1)).tokens == ["<new2>"]
    assert main(["concepts", "--run", str(copy), "--verify"]) == 0
    monkeypatch.setattr(StopAt, "step", None)
    assert main(command) == 0
    assert NeuronRegistry.load(place).tokens == NeuronRegistry.load(run / "registry").tokens


@pytest.mark.parametrize(
    ("steps", "said"),
    [("[0]", "is 0, at least 1 is needed"), ("[1, 3]", "has 3, and a stage has 3 steps"), ("[1.5]", "1.5")],
)
def test_impossible_steps_are_refused(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: str, said: str
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat"])
    assert main(arguments(tiny_base_model, sequence, tmp_path / "run", "--snapshots.steps", steps)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_curve_is_that_of_the_pictures_of_complete_snapshots(
    tiny_base_model: Path, tiny_judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "sequence", ["cat", "dog"]), tmp_path / "run"
    content = {**yaml.safe_load(sequence.read_text("utf-8")), "prompts": PROMPTS}
    sequence.write_text(yaml.safe_dump({**content, "concepts": content["concepts"][:1], "prompts": {}}), "utf-8")
    assert main(arguments(tiny_base_model, sequence, run, "--snapshots.steps", "[2]")) == 0
    sequence.write_text(yaml.safe_dump(content), "utf-8")
    # Other steps continue the run; those that are new lack the first concept.
    assert main(arguments(tiny_base_model, sequence, run, "--snapshots.steps", "[1, 2]")) == 0
    assert NeuronRegistry.load(RunFolder(run).snapshot(1)).tokens == ["<new2>"]
    command = ["test", "--run", str(run), "--judge", str(tiny_judge), "--device", "cpu", "--matrix-pictures", "0"]
    assert main([*command, "--pictures", "1", "--curve-pictures", "2"]) == 0
    scores, images = read_json(run / "evaluation" / "scores.json"), run / "evaluation" / "images"
    assert [point["steps"] for point in scores["curve"]] == [2, 3]
    assert scores["curve_pictures"] == 2
    assert {path.name for path in images.iterdir()} == {"base", "look-alikes", "stage-01", "step-00002"}
    judge = ClipEncoder(tiny_judge)
    texts = judge.texts(["a cat and a dog"])
    for name, point in zip(("step-00002", "stage-01"), scores["curve"], strict=True):
        drawn = judge.images([Image.open(images / name / f"double-00-seed-{seed}.png") for seed in (0, 1)])
        assert point["several"]["clip_t"] == pytest.approx(float((drawn @ texts.T).mean()), abs=1e-6)
    assert scores["curve"][0]["single"] != scores["curve"][1]["single"]
    times = {path: path.stat().st_mtime_ns for path in images.rglob("*.png")}
    assert main([*command, "--pictures", "2"]) == 0
    again = read_json(run / "evaluation" / "scores.json")
    assert (again["curve_pictures"], len(again["curve"])) == (1, 2)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert main([*command, "--pictures", "1", "--curve-pictures", "0"]) == 0
    assert "curve" not in read_json(run / "evaluation" / "scores.json")
    shutil.rmtree(run / "snapshots")
    capsys.readouterr()
    assert main([*command, "--curve-pictures", "1"]) == 2
    assert "--snapshots.steps" in capsys.readouterr().err


def test_snapshots_of_a_start_that_never_counted_are_not_taken_for_this_run(
    tiny_base_model: Path, tmp_path: Path
) -> None:
    sequence, run = write_sequence(tmp_path / "two", ["cat", "dog"]), tmp_path / "run"
    assert main(arguments(tiny_base_model, sequence, tmp_path / "other", "--snapshots.steps", "[1]")) == 0
    # Killed after its first snapshot and before its first checkpoint; then other steps are asked for.
    shutil.copytree(tmp_path / "other" / "snapshots", run / "snapshots")
    assert main(arguments(tiny_base_model, sequence, run, "--snapshots.steps", "[2]")) == 0
    assert RunFolder(run).snapshot_steps() == [2]
