"""What `fit` can afford to look at before it starts."""

import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cns_lightning.cli.main import main
from cns_lightning.doctor.examination import PlannedRun, quick_findings
from cns_lightning.doctor.findings import Severity
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Concept, EvaluationPrompts, Sequence
from tests.doctor.photos import noise, turned, write_good
from tests.runs.learning import arguments, write_sequence

CNS = "cns_lightning.methods.cns.ConceptNeuronSelection"


def planned(sequence: Sequence, run: Path, base: Path, learned: tuple[str, ...] = ()) -> PlannedRun:
    """Returns a run as `fit` has it once its settings are checked."""
    whole: dict[str, Any] = {
        "model": {
            "method": {"class_path": CNS, "init_args": {}}, "base_model": str(base), "base_dtype": "float32",
            "gradient_checkpointing": False,
        },
        "data": {"batch_size": 2, "prior": {"pictures": 0}},
        "trainer": {"accelerator": "cpu", "devices": 1, "precision": "32-true"},
        "samples": {"pictures": 4},
        "snapshots": {"steps": None},
    }  # fmt: skip
    return PlannedRun(sequence, learned, RunConfig(run / "config.yaml", {}, {}, whole), RunFolder(run))


def sequence_of(folders: list[Path]) -> Sequence:
    concepts = [Concept(f"<cns{each.name}>", each.name, "animal", each) for each in folders]
    return Sequence("family", tuple(concepts), EvaluationPrompts())


def test_seven_folders_of_twenty_large_photos(tiny_base_model: Path, tmp_path: Path) -> None:
    first = tmp_path / "photo.jpg"
    noise(0, 100).resize((4000, 3000)).save(first, exif=turned())
    folders = [tmp_path / name for name in "abcdefg"]
    for folder in folders:
        folder.mkdir()
        for number in range(20):
            (folder / f"{number}.jpg").hardlink_to(first)
    run = planned(sequence_of(folders), tmp_path / "run", tiny_base_model)
    quick_findings(run)  # imports
    start, loaded = time.process_time(), set(sys.modules)
    found = quick_findings(run)
    assert time.process_time() - start < 1
    assert set(sys.modules) == loaded
    notes = [each for each in found if each.problem == "turned by its EXIF orientation"]
    assert [len(each.names) for each in notes] == [20] * 7
    assert all(each.severity is Severity.NOTE for each in found)
    assert not (tmp_path / "run").exists()


def test_what_matters_is_found_without_decoding(tiny_base_model: Path, tmp_path: Path) -> None:
    for name, seed, side in (("cat", 1, 24), ("dog", 2, 64)):
        write_good(tmp_path / name, seed, side=side)
    sequence = sequence_of([tmp_path / "cat", tmp_path / "dog"])
    problems = [each.problem for each in quick_findings(planned(sequence, tmp_path / "run", tiny_base_model))]
    assert [problem for problem in problems if problem.startswith("smaller")] == [
        "smaller than the 32 pixels a side of the base model's pictures"
    ]
    assert sum("(an estimate)" in problem for problem in problems) == 2


def test_learned_concepts_need_no_pictures(tiny_base_model: Path, tmp_path: Path) -> None:
    write_good(tmp_path / "cat", 1, side=24)
    write_good(tmp_path / "dog", 2)
    sequence = sequence_of([tmp_path / "cat", tmp_path / "dog"])
    run = planned(sequence, tmp_path / "run", tiny_base_model, learned=("<cnscat>",))
    shutil.rmtree(tmp_path / "cat")
    assert all(each.severity is Severity.NOTE for each in quick_findings(run))


def test_a_base_model_that_is_not_there_is_left_to_fit(tmp_path: Path) -> None:
    write_good(tmp_path / "cat", 1)
    run = planned(sequence_of([tmp_path / "cat"]), tmp_path / "run", tmp_path / "nowhere")
    assert quick_findings(run) == []


def test_fit_says_before_it_starts_what_is_worth_a_look(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "photos", ["cat"])
    for path in (tmp_path / "photos" / "cat0").glob("*.png"):
        noise(0, 24).resize((24, 24)).save(path)
    assert main(arguments(tiny_base_model, sequence, tmp_path / "run", "--samples.pictures", "0", steps=1)) == 0
    said = capsys.readouterr().err
    assert "smaller than the 32 pixels a side of the base model's pictures" in said
    assert said.index("smaller than") < said.index("concept 1/1")
