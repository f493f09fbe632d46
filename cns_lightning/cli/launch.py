"""``launch``: writes a SLURM batch script that runs ``fit``, and submits it."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from cns_lightning.cli.arguments import path_argument
from cns_lightning.errors import EXIT_DONE, Problems, UserError
from cns_lightning.slurm.script import BatchJob, Task
from cns_lightning.user_files import shipped

_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}")
_SET_HERE = {"--trainer.devices": "--devices", "--trainer.num_nodes": "--nodes"}

_EXPLANATION = """\
Every other argument goes to fit (fit --help). What fit would refuse is refused here, before anything waits in a queue.

  python -m cns_lightning launch --config configs/base/sd15.yaml --config configs/methods/cns.yaml \\
      --config configs/hardware/slurm.yaml --data.sequence family.yaml --run runs/family --devices 4 --time 2:00:00

The job saves itself before its time limit and goes back into the queue; docs/slurm.md.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's own arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning launch",
        description="Writes a SLURM batch script that runs fit on a configuration, and submits it.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument("--config", action="append", required=True, metavar="FILE", help="as for fit; may be repeated")
    options.add_argument(
        "--run",
        type=path_argument,
        required=True,
        metavar="DIR",
        help="run folder; of an array: its folder of run folders",
    )
    options.add_argument(
        "--array",
        nargs="+",
        type=path_argument,
        default=[],
        metavar="FILE",
        help="one run for each of these configurations, stacked on top; in DIR/NAME",
    )
    options.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="one run for each seed; in DIR/seed-N, with --array in DIR/NAME-seed-N",
    )
    options.add_argument("--nodes", type=int, metavar="N", help="machines of a run (trainer.num_nodes)")
    options.add_argument("--devices", type=int, metavar="M", help="devices on each, one process each (trainer.devices)")
    options.add_argument("--cpus", type=int, default=4, metavar="N", help="processor cores of each process (4)")
    options.add_argument("--partition", metavar="P")
    options.add_argument("--time", metavar="T", help="limit of one turn, as sbatch takes it: 30, 2:00:00, 1-12")
    options.add_argument("--memory", metavar="M", help="main memory of each machine, such as 64G")
    options.add_argument("--account", metavar="A")
    options.add_argument(
        "--signal-seconds", type=int, default=120, metavar="S", help="save this long before the limit (120)"
    )
    options.add_argument(
        "--setup",
        action="append",
        default=[],
        metavar="LINE",
        help="shell line before fit, as 'module load cuda'; may be repeated",
    )
    options.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="further option of sbatch, as --sbatch=--exclusive; may be repeated",
    )
    options.add_argument("--dry-run", action="store_true", help="show the script, write and submit nothing")
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if a number or file is wrong, fit would refuse the configuration, or sbatch refuses the job.
    """
    known, rest = parser().parse_known_args(argv)
    check(known, rest)
    if not known.dry_run and shutil.which("sbatch") is None:
        remedy = "Run this on a login node of the cluster, or add --dry-run and take the script there"
        raise UserError("launch", "there is no sbatch on this machine", remedy)
    tasks = tasks_of(known, rest)
    # Here, so that --help does not wait for torch.
    from cns_lightning.configuration.parser import checked_configuration

    trainers = [
        checked_configuration([*task.arguments, "--run", str(task.run)], is_compared=False).trainer for task in tasks
    ]
    nodes = known.nodes or _of_all("trainer.num_nodes", "--nodes", [trainer.num_nodes for trainer in trainers])
    devices = known.devices or _of_all(
        "trainer.devices", "--devices", [counted_devices(trainer.devices) for trainer in trainers]
    )
    job = BatchJob(
        name=known.run.absolute().name,
        tasks=tasks,
        folder=known.run.absolute() / "slurm",
        directory=Path.cwd(),
        # Not resolved: the link inside a virtual environment is what makes it one.
        python=Path(sys.executable),
        nodes=nodes,
        devices=devices,
        cpus=known.cpus,
        uses_gpu=any(trainer.accelerator != "cpu" for trainer in trainers),
        partition=known.partition,
        time=known.time,
        memory=known.memory,
        account=known.account,
        signal_seconds=known.signal_seconds,
        setup=tuple(known.setup),
        extra=tuple(known.sbatch),
    )
    for task in tasks:
        checked_configuration(job.fit_arguments(task))
    if known.dry_run:
        sys.stdout.write(job.text())
    else:
        submit(job)
    return EXIT_DONE


def check(known: argparse.Namespace, rest: list[str]) -> None:
    """Refuses numbers and words that no job can be made of.

    Raises:
        UserError: naming every one of them.
    """
    problems = Problems()
    for name in ("nodes", "devices", "cpus", "signal_seconds"):
        value = getattr(known, name)
        if value is not None and value < 1:
            problems.add(f"--{name.replace('_', '-')}", f"is {value}, at least 1 is needed", "Correct it")
    for key, flag in _SET_HERE.items():
        if any(word == key or word.startswith(f"{key}=") for word in rest):
            problems.add(key, "is what the job is made for", f"Use {flag}")
    limit = seconds_of(known.time) if known.time else None
    if known.time and limit is None:
        problems.add("--time", f"is {known.time}", "Write it as sbatch takes it: 30 (minutes), 2:00:00, 1-12")
    elif limit is not None and limit <= known.signal_seconds:
        problem = (
            f"is {known.time}, over before the signal comes that is to save the run {known.signal_seconds} s early"
        )
        problems.add("--time", problem, "Give more time, or less --signal-seconds")
    problems.raise_if_any()


def seconds_of(time: str) -> int | None:
    """Returns the seconds of a time limit as sbatch reads it, None if it cannot: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
    if not _TIME.fullmatch(time):
        return None
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def tasks_of(known: argparse.Namespace, rest: list[str]) -> tuple[Task, ...]:
    """Returns one task for each configuration of ``--array`` and each seed; a single one without either."""
    run, common = known.run.absolute(), [word for file in known.config for word in ("--config", file)]
    array = [shipped(str(file)) for file in known.array]
    files = array or [None]
    names = [file.stem for file in array]
    if len(set(names)) < len(names):
        raise UserError(
            "--array",
            f"two files have the same name: {', '.join(sorted(names))}",
            "Rename one: run folders are called after them",
        )
    tasks = []
    for file in files:
        top = ["--config", str(file)] if file else []
        for seed in known.seeds or [None]:
            name = "-".join([*([file.stem] if file else []), *([f"seed-{seed}"] if seed is not None else [])])
            drawn = ["--seed_everything", str(seed)] if seed is not None else []
            tasks.append(Task(run / name if name else run, (*common, *top, *rest, *drawn)))
    return tuple(tasks)


def _of_all(key: str, flag: str, values: list[int]) -> int:
    """Returns the number that all tasks of a job have; SLURM gives each as much.

    Raises:
        UserError: if they differ.
    """
    if len(set(values)) > 1:
        raise UserError(key, f"is {', '.join(map(str, values))} in the files of --array", f"Give {flag} for all")
    return values[0]


def counted_devices(devices: object) -> int:
    """Returns the number of devices that a configuration means, without a look at this machine.

    Raises:
        UserError: if it depends on the machine.
    """
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, int) and devices > 0:
        return devices
    raise UserError("trainer.devices", f"is {devices}, which depends on the machine", "Give --devices")


def submit(job: BatchJob) -> None:
    """Writes the script and hands it to sbatch.

    Raises:
        UserError: if the script cannot be written, or sbatch refuses it.
    """
    from cns_lightning.storage import write_atomically

    path = free_name(job.folder, job.text())
    write_atomically(path, job.text().encode())
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(
            str(path), f"sbatch refuses it: {done.stderr.strip()}", "Correct what it names and launch again"
        )
    number = done.stdout.strip().split(";")[0]
    log = job.numbers.replace("%j", number).replace("%A_%a", f"{number}_*") + ".log"
    sys.stdout.write(f"submitted as job {number}: {path}\nwhat it prints: {job.folder / log}\n")


def free_name(folder: Path, text: str) -> Path:
    """Returns a path for a script that overwrites none with another text: someone may have edited it."""
    number = 1
    while True:
        path = folder / ("job.sbatch" if number == 1 else f"job-{number}.sbatch")
        if not path.exists() or path.read_text("utf-8") == text:
            return path
        number += 1
