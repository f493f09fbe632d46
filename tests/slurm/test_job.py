"""What a job of SLURM asks for and refuses, with a scontrol that only writes down what it is asked."""

import os
from pathlib import Path

import pytest

from cns_lightning.errors import UserError
from cns_lightning.slurm.job import check_tasks, job_id, leave_out_tasks, requeue

SCONTROL = """#!/bin/sh
echo "$@" >> {folder}/asked
if [ "$1" = show ]; then cat {folder}/job; fi
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes this process one of job 7; gives a folder with what scontrol shows (`job`) and was asked (`asked`)."""
    program = tmp_path / "scontrol"
    program.write_text(SCONTROL.format(folder=tmp_path), "utf-8")
    program.chmod(0o755)
    (tmp_path / "job").write_text("JobId=7 JobState=RUNNING PreemptTime=None", "utf-8")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    return tmp_path


def asked(job: Path) -> list[str]:
    """Lists what scontrol was asked."""
    path = job / "asked"
    return path.read_text("utf-8").splitlines() if path.exists() else []


def test_turns_are_counted_and_limited(job: Path) -> None:
    notes = job / "requeues.json"
    for turn in (1, 2):
        assert f"requeued ({turn} of at most 2 times)" in requeue(notes, 10 * turn, is_asked=True, limit=2)
    assert "is not requeued again" in requeue(notes, 30, is_asked=True, limit=2)
    assert asked(job) == ["requeue 7", "requeue 7"]


def test_a_job_that_gets_nowhere_is_not_requeued(job: Path) -> None:
    notes = job / "requeues.json"
    requeue(notes, 10, is_asked=True, limit=100)
    assert "has not taken one step" in requeue(notes, 10, is_asked=True, limit=100)
    assert asked(job) == ["requeue 7"]


def test_another_job_on_the_folder_counts_anew(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = job / "requeues.json"
    requeue(notes, 10, is_asked=True, limit=1)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert "requeued (1 of" in requeue(notes, 10, is_asked=True, limit=1)


@pytest.mark.parametrize(
    ("shown", "is_requeued"),
    [
        ("JobState=RUNNING PreemptTime=None", False),
        ("JobState=RUNNING PreemptTime=2026-11-25T11:03:58", True),
        ("JobState=CANCELLED PreemptTime=2026-11-25T11:03:58", False),
    ],
)
def test_a_terminated_job_is_requeued_if_it_was_preempted(job: Path, shown: str, is_requeued: bool) -> None:
    (job / "job").write_text(f"JobId=7 {shown}", "utf-8")
    requeue(job / "requeues.json", 10, is_asked=False, limit=100)
    assert ("requeue 7" in asked(job)) == is_requeued


def test_outside_of_a_job_nothing_is_asked(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    assert requeue(job / "requeues.json", 10, is_asked=True, limit=100) == ""
    assert asked(job) == []


def test_a_task_of_an_array_has_a_number_of_its_own(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert job_id() == "5_3"


def test_tasks_that_are_not_the_processes_are_refused(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    check_tasks(2)
    with pytest.raises(UserError, match=r"is 1, and SLURM has started 2 tasks.*--ntasks-per-node"):
        check_tasks(1)
    monkeypatch.delenv("SLURM_JOB_ID")
    check_tasks(1)


def test_tasks_of_an_allocation_are_left_out_where_srun_started_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    leave_out_tasks()
    assert "SLURM_NTASKS" not in os.environ
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    leave_out_tasks()
    assert os.environ["SLURM_NTASKS"] == "4"
