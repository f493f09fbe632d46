"""`analyze` on a run and on a base model alone."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cns_lightning.callbacks.importance_scoring import strong_overlaps
from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.storage import read_json
from tests.runs.learning import learn


def test_a_run_is_analysed(tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = learn("cns", tiny_base_model, tmp_path)
    assert main(["analyze", "--run", str(run), "--device", "cpu"]) == 0
    folder, said = run / "analysis", capsys.readouterr().out
    facts, registry = read_json(folder / "analysis.json"), NeuronRegistry.load(run / "registry")
    # Selected anew from the rare words that the tokens started from: the masks that the run trained.
    assert facts["sensitivity"]["anew"] == {"concepts": 2, "iou_with_trained": 1.0}
    assert facts["general"] == registry.general_metadata()
    masks = [record.mask for record in registry.records if record.mask is not None]
    assert facts["overlap"]["mean_pairwise"] == masks[0].iou(masks[1])
    by_prompts = [row for row in facts["sensitivity"]["rows"] if row["changed"] == "prompts"]
    assert (by_prompts[-1]["general_iou"], by_prompts[-1]["concept_iou"]) == (1.0, 1.0)
    assert "Spearman" in said
    assert f"written to {folder}" in said
    for name in ("shares", "overlap", "places", "capacity", "sensitivity", "similarity-1", "similarity-decay"):
        with Image.open(folder / f"{name}.png") as picture:
            picture.load()
        assert (folder / f"{name}.svg").read_text("utf-8").lstrip().startswith("<?xml")
    rows = list(csv.DictReader((folder / "similarity.csv").open(encoding="utf-8")))
    assert len(rows) == 3 * 2 * 11 * 11
    assert all(float(row["iou"]) == 1 for row in rows if row["one"] == row["other"])


def test_a_base_model_needs_no_run(tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = tmp_path / "mine.txt"
    queries.write_text("# cats\na cat\na cat in the snow\na boat on the sea\n", "utf-8")
    command = ["analyze", "--base-model", str(tiny_base_model), "--queries", str(queries), "--device", "cpu"]
    monkeypatch.chdir(tmp_path)
    assert main(command) == 0
    assert set(read_json(tmp_path / "analysis" / "analysis.json")) == {"base_model", "general", "similarity"}
    assert {path.stem for path in (tmp_path / "analysis").glob("*.png")} == {"similarity-1", "similarity-decay"}


def test_a_method_without_selection_has_shares_alone(tiny_base_model: Path, tmp_path: Path) -> None:
    run = learn("fine_tuning", tiny_base_model, tmp_path)
    assert main(["analyze", "--run", str(run), "--device", "cpu", "--parts", "concepts", "sensitivity"]) == 0
    facts = read_json(run / "analysis" / "analysis.json")
    assert [row["key_value_share"] for row in facts["shares"]] == [1.0, 1.0, 1.0]
    assert "sensitivity" not in facts


def test_strong_overlap_is_said(tiny_base_model: Path, tmp_path: Path) -> None:
    records = list(NeuronRegistry.load(learn("cns", tiny_base_model, tmp_path) / "registry").records)
    first = records[0].mask
    assert first is not None
    [said] = strong_overlaps("<new9>", first, records[:1])
    assert said.startswith("<new9> has much the same neurons as <new1> (IoU 1.00)")
    assert strong_overlaps("<new9>", first - first, records) == []


def test_what_is_asked_for_is_checked_before_the_model_is_loaded(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    monkeypatch.setattr(BaseModel, "load", lambda *_: pytest.fail("loaded"))
    command = ["analyze", "--base-model", str(tiny_base_model)]
    assert main([*command, "--out", str(tmp_path / "file")]) == 2
    assert "--out" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "out"), "--calibration", "nowhere.txt"]) == 2
    assert "there is no file nowhere.txt" in capsys.readouterr().err
    assert main(["analyze"]) == 2
    assert "has neither --run nor --base-model" in capsys.readouterr().err


def test_a_base_model_that_was_moved_is_found_again(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copytree(tiny_base_model, tmp_path / "base"))
    run = learn("cns", base, tmp_path)
    moved = str(base.rename(tmp_path / "elsewhere"))
    for command in (["analyze", "--parts", "concepts"], ["concepts", "--verify"]):
        assert main([*command, "--run", str(run)]) == 2
        assert main([*command, "--run", str(run), "--base-model", moved]) == 0, capsys.readouterr().err
    assert main(["concepts", "--run", str(run), "--base-model", moved]) == 2
    assert "--base-model: is read by --verify alone" in capsys.readouterr().err
