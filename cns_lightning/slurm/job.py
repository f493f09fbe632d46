"""Jobs of SLURM: what a running one says about itself, and how it asks for another turn."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from cns_lightning.errors import UserError
from cns_lightning.storage import read_json, write_json


def job_id() -> str | None:
    """Returns the id of the batch job this process runs in, in the form scontrol takes; None outside of one."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def leave_out_tasks() -> None:
    """Hides the tasks of an allocation from Lightning where srun has not started this process.

    In a shell of salloc, or of a desktop on a node, SLURM's variables say how many tasks there could be; Lightning
    takes that for how many there are.
    """
    if "SLURM_PROCID" not in os.environ:
        os.environ.pop("SLURM_NTASKS", None)


def is_task() -> bool:
    """Returns whether srun has started this process as one of a job's; Lightning takes a shell of srun for none."""
    return "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")


def check_tasks(processes: int) -> None:
    """Refuses a job whose tasks are not the run's processes: each would train alone, in one folder.

    Args:
        processes: number of processes of the run, over all nodes.

    Raises:
        UserError: if SLURM started another number of tasks.
    """
    tasks = os.environ.get("SLURM_NTASKS")
    if job_id() is None or not is_task() or tasks is None or int(tasks) == processes:
        return
    raise UserError(
        "trainer.devices x trainer.num_nodes",
        f"is {processes}, and SLURM has started {tasks} tasks",
        "Set --ntasks-per-node to trainer.devices and --nodes to trainer.num_nodes; `launch` does",
    )


def is_preempted(job: str) -> bool:
    """Returns whether SLURM is taking a running job off its nodes; a job that a user cancels does not count."""
    shown = _scontrol("show", "job", "-o", job)
    facts = dict(word.split("=", 1) for word in shown.stdout.split() if "=" in word)
    return facts.get("JobState") in ("RUNNING", "PREEMPTED") and facts.get("PreemptTime", "None") != "None"


def requeue(notes: Path, step: int, is_asked: bool, limit: int) -> str:
    """Puts the running job back into the queue, where there is one and it makes sense.

    Args:
        notes: file that counts the turns of the job.
        step: optimizer steps of the run so far.
        is_asked: the signal means that the job shall be requeued; otherwise only if it is preempted.
        limit: turns a job may have.

    Returns:
        What was done, a line each.
    """
    job = job_id()
    if job is None or shutil.which("scontrol") is None or not (is_asked or is_preempted(job)):
        return ""
    known = read_json(notes) if notes.exists() else {}
    turns = known.get("requeues", 0) + 1 if known.get("job") == job else 1
    if turns > limit:
        return f"job {job} was requeued {limit} times and is not requeued again (signals.requeue_limit)\n"
    if known.get("job") == job and known.get("step") == step:
        return (
            f"job {job} is not requeued: since the last time it has not taken one step. Give it more time, or let the "
            "signal come later (launch --time, --signal-seconds)\n"
        )
    write_json(notes, {"job": job, "requeues": turns, "step": step})
    done = _scontrol("requeue", job)
    if done.returncode:
        return f"scontrol requeue {job} failed: {done.stderr.strip()}\n"
    return f"job {job} is requeued ({turns} of at most {limit} times)\n"


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, check=False)
