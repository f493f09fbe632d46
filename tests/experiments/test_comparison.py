"""Where the runs of a comparison go, and which of them are done."""

import os
import sys
from pathlib import Path

import pytest

from cns_lightning.errors import RunStopped
from cns_lightning.experiments import execution
from cns_lightning.experiments.comparison import Run
from cns_lightning.experiments.execution import DONE, carry_out, environments
from cns_lightning.experiments.scoring_options import ScoringOptions
from cns_lightning.storage import write_json


def test_runs_side_by_side_do_not_share_a_gpu_or_a_core() -> None:
    assert environments(0, gpus=3, cores=16, given={}) == [{"CUDA_VISIBLE_DEVICES": str(n)} for n in range(3)]
    assert environments(0, gpus=0, cores=2, given={}) == [{"OMP_NUM_THREADS": "1"}] * 2
    assert environments(2, gpus=0, cores=8, given={}) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert environments(1, gpus=0, cores=8, given={}) == [{}]
    assert environments(3, gpus=2, cores=8, given={})[2] == {"CUDA_VISIBLE_DEVICES": "0"}


def test_runs_use_the_gpus_that_are_lent_and_threads_that_are_given() -> None:
    lent = {"CUDA_VISIBLE_DEVICES": "2,GPU-5f"}
    assert [place["CUDA_VISIBLE_DEVICES"] for place in environments(0, 2, 8, lent)] == ["2", "GPU-5f"]
    assert environments(2, gpus=0, cores=8, given={"OMP_NUM_THREADS": "3"}) == [{}, {}]


def test_a_run_has_a_gpu_of_its_own_and_is_repeated_when_its_files_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "import os, sys; open(sys.argv[1], 'a').write(os.environ['CUDA_VISIBLE_DEVICES'] + ' ')"
    monkeypatch.setattr(execution, "commands", lambda run: [[sys.executable, "-c", note, str(run.folder / "seen")]])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    path = tmp_path / "file.yaml"
    runs = [
        Run("any", "set", seed, tmp_path / str(seed), str(path), (str(path),), (), ScoringOptions()) for seed in (0, 1)
    ]

    def seen() -> list[list[str]]:
        carry_out(runs, environments(0, 2, 8, os.environ), lambda text: None)
        return sorted((run.folder / "seen").read_text().split() for run in runs)

    for run in runs:
        write_json(run.folder / "evaluation" / "scores.json", {})
    path.write_text("rate: 1")
    assert seen() == [["4"], ["7"]]
    assert seen() == [["4"], ["7"]]
    path.write_text("rate: 2")
    assert [len(each) for each in seen()] == [2, 2]


def test_one_run_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "commands", lambda run: [[sys.executable, "-c", f"exit({run.seed})", "x"]])
    path = tmp_path / "file.yaml"
    path.touch()
    runs = [
        Run("any", "set", seed, tmp_path / str(seed), str(path), (str(path),), (), ScoringOptions()) for seed in (1, 0)
    ]
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / DONE).write_text("{")
    damaged = Run("any", "set", 0, tmp_path / "damaged", str(path), (str(path),), (), ScoringOptions())
    with pytest.raises(RunStopped, match=r"2 runs failed.*damaged.*/1 .x ended with 1"):
        carry_out([damaged, *runs], [{}], lambda text: None)
    assert (tmp_path / "0" / DONE).exists()
    assert not (tmp_path / "1" / DONE).exists()
