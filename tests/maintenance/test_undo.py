"""Concepts taken out of a run: what is left, and that `fit` goes on from there."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from cns_lightning.cli.main import main
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.checkpoint_file import SealedCheckpointIO
from cns_lightning.runs.metrics import read_rows
from tests.runs.learning import arguments, write_sequence

LEARNED = (
    "metrics.csv",
    "registry/registry.json",
    "registry/001-new2.safetensors",
    "registry/002-new3.safetensors",
    "samples/stage-2.png",
)


@pytest.fixture(scope="module")
def finished(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Returns base model, sequence file and run folder of a finished run of three concepts."""
    folder = tmp_path_factory.mktemp("undo")
    sequence = write_sequence(folder, ["cat", "dog", "cat"])
    assert main(arguments(tiny_base_model, sequence, folder / "run")) == 0
    return tiny_base_model, sequence, folder / "run"


@pytest.fixture
def run(finished: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    """Returns a copy of the finished run."""
    return Path(shutil.copytree(finished[2], tmp_path / "run"))


def shortened(sequence: Path, without: str, name: str) -> Path:
    """Writes the sequence without a concept beside the whole one."""
    content = yaml.safe_load(sequence.read_text("utf-8"))
    content["concepts"] = [concept for concept in content["concepts"] if concept["token"] != without]
    path = sequence.with_name(name)
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_after_a_rollback_the_rest_is_learned_again_as_it_was(finished: tuple[Path, Path, Path], run: Path) -> None:
    base, sequence, uninterrupted = finished
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["base.png", "stage-0.png"]
    assert main(arguments(base, sequence, run)) == 0
    for name in LEARNED:
        assert (run / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_after_a_rollback_another_concept_may_follow(finished: tuple[Path, Path, Path], run: Path) -> None:
    base, sequence, _ = finished
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    assert main(arguments(base, shortened(sequence, "<new2>", "other.yaml"), run)) == 0
    assert NeuronRegistry.load(run / "registry").tokens == ["<new1>", "<new3>"]


def test_removing_leaves_a_model_of_the_others_and_learning_goes_on(
    finished: tuple[Path, Path, Path], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, sequence, whole = finished
    assert main(["concepts", "--run", str(run), "--remove", "<new2>"]) == 0
    alone = NeuronRegistry.create(None, "tiny", NeuronRegistry.load(whole / "registry").base_fingerprint)
    for token in ("<new1>", "<new3>"):
        alone.add(NeuronRegistry.load(whole / "registry").record(token))
    pretrained = NeuronRegistry.load(whole / "registry")._loaded_base_weights()
    left = NeuronRegistry.load(run / "registry").weights()
    assert all(torch.equal(left[name], weight) for name, weight in alone.weights(base=pretrained).items())
    rows = read_rows(run / "metrics.csv")
    assert [row["concept"] for row in rows] == ["<new1>"] * 2 + ["<new3>"] * 2
    assert [row["step"] for row in rows] == ["0", "3", "3", "6"]
    assert main(arguments(base, sequence, run)) == 2
    assert "concepts[1].token was '<new3>'" in capsys.readouterr().err
    longer = yaml.safe_load(sequence.read_text("utf-8"))
    first, second, third = longer["concepts"]
    longer["concepts"] = [first, third, {**second, "token": "<new4>"}]
    path = sequence.with_name("longer.yaml")
    path.write_text(yaml.safe_dump(longer), "utf-8")
    assert main(arguments(base, path, run)) == 0
    assert NeuronRegistry.load(run / "registry").tokens == ["<new1>", "<new3>", "<new4>"]
    assert [row["step"] for row in read_rows(run / "metrics.csv")] == ["0", "3", "3", "6", "6", "9"]


def test_an_undo_that_died_half_way_is_refused_and_can_be_finished(
    finished: tuple[Path, Path, Path], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, sequence, _ = finished
    NeuronRegistry.load(run / "registry").remove("<new2>")
    assert main(arguments(base, sequence, run)) == 0, "a finished run is not touched"
    longer = yaml.safe_load(sequence.read_text("utf-8"))
    longer["concepts"].append({**longer["concepts"][0], "token": "<new4>"})
    path = sequence.with_name("four.yaml")
    path.write_text(yaml.safe_dump(longer), "utf-8")
    assert main(arguments(base, path, run)) == 2
    assert "concepts --rollback <new3>" in capsys.readouterr().err
    assert main(["concepts", "--run", str(run), "--rollback", "<new3>"]) == 0
    assert main(arguments(base, shortened(sequence, "<new2>", "two.yaml"), run)) == 0


def test_a_rollback_without_its_checkpoint_changes_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "stage-0.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 2
    assert "stage-0.ckpt" in capsys.readouterr().err
    assert len(NeuronRegistry.load(run / "registry").tokens) == 3


def test_verify_reads_everything_and_finds_damage(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["concepts", "--run", str(run), "--verify"]) == 0
    assert "9 files read" in capsys.readouterr().out
    path = run / "checkpoints" / "stage-1.ckpt"
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(bytes(data))
    assert main(["concepts", "--run", str(run), "--verify"]) == 2
    assert "stage-1.ckpt" in capsys.readouterr().err


def test_a_stage_checkpoint_is_small(run: Path) -> None:
    state = SealedCheckpointIO().load_checkpoint(run / "checkpoints" / "stage-1.ckpt")
    assert state["state_dict"] == {}
    assert state["optimizer_states"] == []
    assert state["continual"]["done_stages"] == 2


def test_rows_of_kept_concepts_stay_when_learning_goes_on_and_steps_count_on(
    tiny_base_model: Path, tmp_path: Path
) -> None:
    sequence, run = write_sequence(tmp_path, ["cat", "dog", "cat"]), tmp_path / "run"
    content = yaml.safe_load(sequence.read_text("utf-8")) | {"prompts": {}}
    for concept, steps in zip(content["concepts"], (2, 4, 6), strict=True):
        concept["settings"] = {"steps": steps}
    sequence.write_text(yaml.safe_dump(content), "utf-8")
    assert main(arguments(tiny_base_model, sequence, run, steps=None)) == 0
    assert main(["concepts", "--run", str(run), "--remove", "<new1>"]) == 0
    kept = read_rows(run / "metrics.csv")
    assert [row["step"] for row in kept] == ["0", "4", "4", "10"]
    first, *others = content["concepts"]
    path = sequence.with_name("others.yaml")
    path.write_text(yaml.safe_dump({**content, "concepts": [*others, {**first, "token": "<new4>"}]}), "utf-8")
    assert main(arguments(tiny_base_model, path, run, steps=None)) == 0
    rows = read_rows(run / "metrics.csv")
    assert rows[: len(kept)] == kept
    assert [(row["concept"], row["step"]) for row in rows[len(kept) :]] == [("<new4>", "10"), ("<new4>", "12")]


def test_copies_that_a_user_keeps_beside_ours_stay(run: Path) -> None:
    copies = [run / "registry" / "002-new3 copy.safetensors", run / "checkpoints" / "stage-0-backup.ckpt"]
    shutil.copy(run / "registry" / "002-new3.safetensors", copies[0])
    shutil.copy(run / "checkpoints" / "stage-0.ckpt", copies[1])
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    assert all(copy.exists() for copy in copies)
    assert NeuronRegistry.load(run / "registry").tokens == ["<new1>"]
