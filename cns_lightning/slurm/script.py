"""The text of a SLURM batch script that runs ``fit``; nothing here runs inside a job."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """One run of ``fit``.

    Attributes:
        run: run folder, absolute.
        arguments: arguments of ``fit``, without ``--run``.
    """

    run: Path
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class BatchJob:
    """A job of one run, or an array of one run per task.

    Attributes:
        name: shown in the queue.
        tasks: runs; more than one makes an array.
        folder: folder of what the job prints, absolute.
        directory: folder in which ``fit`` is started, absolute.
        python: the interpreter, absolute.
        nodes: machines of a run.
        devices: processes on each of them, one a device.
        cpus: processor cores of each process.
        uses_gpu: whether to ask for GPUs.
        partition, time, memory, account: as sbatch takes them; None leaves it to the cluster.
        signal_seconds: seconds before the time limit at which the run is asked to save and make way.
        setup: shell lines before ``fit`` starts, as ``module load cuda``.
        extra: further options of sbatch, as ``--exclusive``.
    """

    name: str
    tasks: tuple[Task, ...]
    folder: Path
    directory: Path
    python: Path
    nodes: int = 1
    devices: int = 1
    cpus: int = 4
    uses_gpu: bool = True
    partition: str | None = None
    time: str | None = None
    memory: str | None = None
    account: str | None = None
    signal_seconds: int = 120
    setup: tuple[str, ...] = field(default=())
    extra: tuple[str, ...] = field(default=())

    @property
    def numbers(self) -> str:
        """Returns what SLURM puts into the name of an output file: the job's number, of an array the task's too."""
        return "%A_%a" if len(self.tasks) > 1 else "%j"

    def text(self) -> str:
        """Returns the script; the same job always gives the same text."""
        lines = [
            "#!/bin/bash",
            "# Written by `python -m cns_lightning launch`. Submit it again to continue: sbatch FILE",
            *(f"#SBATCH {option}" for option in self._options()),
            "",
            # Not -u: what `module` and `conda activate` run does not bear it.
            "set -eo pipefail",
            f"cd {shlex.quote(str(self.directory))}",
            'export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"',
            "# srun has not taken this over from sbatch since SLURM 22.05.",
            'export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"',
            *self.setup,
            "",
            *self._body(),
            "",
        ]
        return "\n".join(lines)

    def _options(self) -> list[str]:
        # A percent sign in a file name of SLURM's stands for something.
        output = str(self.folder).replace("%", "%%") + f"/{self.numbers}.log"
        return [
            f"--job-name={shlex.quote(self.name)}",
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.devices}    # one process per device",
            f"--cpus-per-task={self.cpus}",
            *([f"--gres=gpu:{self.devices}    # every process sees all of its node's"] if self.uses_gpu else []),
            *([f"--mem={self.memory}"] if self.memory else []),
            *([f"--partition={self.partition}"] if self.partition else []),
            *([f"--account={self.account}"] if self.account else []),
            *([f"--time={self.time}"] if self.time else []),
            *([f"--array=0-{len(self.tasks) - 1}"] if len(self.tasks) > 1 else []),
            f"--signal=USR1@{self.signal_seconds}    # seconds before the limit: save, requeue, go on later",
            "--requeue",
            "--open-mode=append",
            f"--output={shlex.quote(output)}",
            *self.extra,
        ]

    def _body(self) -> list[str]:
        if len(self.tasks) == 1:
            return [self._command(self.tasks[0])]
        lines = ['case "$SLURM_ARRAY_TASK_ID" in']
        for number, task in enumerate(self.tasks):
            lines += [f"{number})", self._command(task), ";;"]
        return [*lines, "esac"]

    def fit_arguments(self, task: Task) -> list[str]:
        """Returns the words after ``fit`` of one of the tasks."""
        size = ["--trainer.devices", str(self.devices), "--trainer.num_nodes", str(self.nodes)]
        return [*task.arguments, *size, "--run", str(task.run)]

    def _command(self, task: Task) -> str:
        # Without --kill-on-bad-exit a dead process leaves the others waiting for it until the time limit.
        words = ["srun", "--kill-on-bad-exit=1", str(self.python), "-m", "cns_lightning", "fit"]
        words += self.fit_arguments(task)
        start = words.index("fit") + 1
        text = " ".join(shlex.quote(word) for word in words[:start])
        for word in words[start:]:
            text += f" \\\n    {shlex.quote(word)}" if word.startswith("--") else f" {shlex.quote(word)}"
        return text
