"""Data that changed, moved or went away between two starts of a run: noticed where it matters, and only there."""

import csv
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt

BOTH = ["<new1>", "<new2>"]


def shortened(sequence: Path) -> Path:
    """Writes a sequence file of the first concept alone beside that of both."""
    content = yaml.safe_load(sequence.read_text("utf-8"))
    shorter = sequence.with_name("shorter.yaml")
    shorter.write_text(yaml.safe_dump({**content, "concepts": content["concepts"][:1]}), "utf-8")
    return shorter


def learned(run: Path) -> list[str]:
    return NeuronRegistry.load(run / "registry").tokens


def test_photos_of_a_learned_concept_are_needed_no_more(tiny_base_model: Path, tmp_path: Path) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat", "dog"]), tmp_path / "run"
    assert main(arguments(tiny_base_model, shortened(sequence), run)) == 0
    shutil.rmtree(tmp_path / "photos" / "cat0")
    assert main(arguments(tiny_base_model, sequence, run)) == 0
    assert learned(run) == BOTH


def test_photos_of_a_concept_that_is_to_be_learned_are_needed(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat", "dog"]), tmp_path / "run"
    assert main(arguments(tiny_base_model, shortened(sequence), run)) == 0
    shutil.rmtree(tmp_path / "photos" / "dog1")
    assert main(arguments(tiny_base_model, sequence, run)) == 2
    assert "concepts[1].images" in capsys.readouterr().err


def test_a_project_that_moved_as_a_whole_goes_on(tiny_base_model: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    sequence = write_sequence(here, ["cat", "dog"])
    shutil.copytree(tiny_base_model, here / "model")
    assert main(arguments(here / "model", shortened(sequence), here / "run")) == 0
    here.rename(there)
    assert main(arguments(there / "model", there / sequence.name, there / "run")) == 0
    registry = NeuronRegistry.load(there / "run" / "registry")
    assert (registry.tokens, registry.base_model) == (BOTH, str(there / "model"))


def test_a_run_of_an_earlier_version_goes_on(tiny_base_model: Path, tmp_path: Path) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat", "dog"]), tmp_path / "run"
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr(BaseModel, "fingerprint", lambda self: self.fingerprints()[1])
        assert main(arguments(tiny_base_model, shortened(sequence), run)) == 0
    assert NeuronRegistry.load(run / "registry").base_fingerprint != BaseModel.load(str(tiny_base_model)).fingerprint()
    assert main(arguments(tiny_base_model, sequence, run)) == 0
    assert learned(run) == BOTH


def test_another_base_model_is_still_refused(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cns_lightning.miniature.tiny import tiny_base_model as write_tiny_base_model

    sequence, run = write_sequence(tmp_path / "photos", ["cat", "dog"]), tmp_path / "run"
    assert main(arguments(tiny_base_model, shortened(sequence), run)) == 0
    other = write_tiny_base_model(tmp_path / "other", seed=1)
    assert main(arguments(other, sequence, run)) == 2
    assert "was learned on" in capsys.readouterr().err
    assert learned(run) == BOTH[:1]


def test_a_base_model_named_by_a_relative_path_is_found_from_elsewhere(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat"]), tmp_path / "run"
    root = Path.cwd()
    shutil.copytree(tiny_base_model, tmp_path / "model")
    words = arguments(Path("model"), sequence, run)
    words = [str(root / word) if word.startswith("configs/") else word for word in words]
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0
    monkeypatch.chdir(tmp_path / "photos")
    assert main(["generate", "--run", str(run), "--prompt", "a <new1> cat", "--n", "1", "--steps", "2"]) == 0


@pytest.mark.parametrize("change", ["picture", "caption", "mask"])
def test_pictures_that_change_in_the_middle_of_a_stage_are_noticed(
    tiny_base_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str,
) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat", "dog"]), tmp_path / "run"
    command = arguments(tiny_base_model, sequence, run, CALLBACK)
    monkeypatch.setattr(StopAt, "step", 5)
    with pytest.raises(SystemExit):
        main(command)
    monkeypatch.setattr(StopAt, "step", None)
    caption, picture = tmp_path / "photos" / "dog1" / "0.txt", tmp_path / "photos" / "dog1" / "0.png"
    if change == "picture":
        shutil.copy(picture, tmp_path / "0.png")
        shutil.copy(picture, picture.with_name("9.png"))
    elif change == "mask":
        Image.new("L", (40, 32), 255).save(picture.with_name("0.mask.png"))
    else:
        caption.write_text("a <new2> dog in the snow", "utf-8")
    assert main(command) == 2
    assert "holds other pictures, captions or masks than when the stage of <new2> began" in capsys.readouterr().err
    # Put back as they were, they are those of before.
    caption.unlink(missing_ok=True)
    picture.with_name("9.png").unlink(missing_ok=True)
    picture.with_name("0.mask.png").unlink(missing_ok=True)
    assert main(command) == 0
    assert learned(run) == BOTH


def test_a_start_that_never_trained_binds_nothing(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat"]), tmp_path / "run"
    wrong = sequence.with_name("wrong.yaml")
    wrong.write_text(sequence.read_text("utf-8").replace("<new1>", "<|endoftext|>"), "utf-8")
    assert main(arguments(tiny_base_model, wrong, run)) == 2
    assert main(arguments(tmp_path / "nowhere", sequence, run)) == 2
    assert main(arguments(tiny_base_model, sequence, run)) == 0
    assert learned(run) == BOTH[:1]


def test_steps_may_follow_the_number_of_pictures(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat", "dog"]), tmp_path / "run"
    shutil.copy(tmp_path / "photos" / "dog1" / "0.png", tmp_path / "photos" / "dog1" / "3.png")
    more = ("--data.steps_per_picture", "2", "--metrics.every_steps", "1", "--model.method.learning_rate_falls", "true")
    whole = arguments(tiny_base_model, sequence, run, *more, steps=None)
    assert main(arguments(tiny_base_model, shortened(sequence), run, *more, steps=None)) == 0
    # Of a learned concept nobody asks how many pictures it had.
    shutil.rmtree(tmp_path / "photos" / "cat0")
    assert main(whole) == 0
    rows = list(csv.DictReader((run / "metrics.csv").read_text("utf-8").splitlines()))
    steps = [row for row in rows if row["loss"]]
    assert [sum(row["stage"] == stage for row in steps) for stage in ("0", "1")] == [3 * 2, 4 * 2]
