"""Carries out runs as processes of their own, so that each has its own peak memory; nothing finished is repeated.

On Linux they are forked from one process per place that has imported everything; elsewhere each starts anew.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.errors import RunStopped, UserError
from cns_lightning.experiments.child_processes import ChildProcesses
from cns_lightning.experiments.warm_process import IS_POSSIBLE, PROGRAM, WarmProcess
from cns_lightning.runs.folder import RunFolder, make_folder
from cns_lightning.storage import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cns_lightning.experiments.comparison import Run

DONE = "compared.json"
"""Holds what has been carried out in a run folder; see `done_mark`."""
SCORES = 4
"""Counts what `test` writes: a run that was scored by an earlier version of it is scored again."""


def places_of(jobs: int) -> list[dict[str, str]]:
    """Returns the environment of each of the runs side by side on this machine."""
    # Those lent to this process; a job on a cluster has fewer than the machine.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return environments(jobs, torch.cuda.device_count(), cores, os.environ)


def commands(run: Run) -> list[list[str]]:
    """Returns the command lines of a run: learn, then score."""
    return [[*PROGRAM, "fit", *run.fit_arguments()], [*PROGRAM, "test", *run.test_arguments()]]


def environments(jobs: int, gpus: int, cores: int, given: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns what each of the runs side by side finds in its environment besides the usual: its GPU, or its threads.

    Args:
        jobs: runs side by side; 0 stands for one a GPU, or one a core where there is none.
        gpus: GPUs that this process sees.
        cores: number of cores of this machine.
        given: environment of this process: the GPUs it may use by name, and threads, which win over ours.
    """
    count = jobs or gpus or cores
    if gpus:
        # Under a scheduler the GPUs lent to us are a list of names already: of these, not of all the machine has.
        names = given.get("CUDA_VISIBLE_DEVICES", "").split(",")
        visible = names if len(names) == gpus and all(names) else [str(number) for number in range(gpus)]
        return [{"CUDA_VISIBLE_DEVICES": visible[number % gpus]} for number in range(count)]
    if count == 1 or "OMP_NUM_THREADS" in given:
        return [{} for _ in range(count)]
    return [{"OMP_NUM_THREADS": str(max(1, cores // count))} for _ in range(count)]


def done_mark(run: Run) -> dict[str, Any]:
    """Returns what a finished run was asked for: its commands and what stood in its files."""
    files = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in (*run.files, run.sequence)}
    return {"commands": [command[3:] for command in commands(run)], "files": files, "scores": SCORES}


def carry_out(runs: list[Run], places: list[dict[str, str]], say: Callable[[str], None]) -> None:
    """Runs everything, some side by side; what a run prints goes to ``output.txt`` in its folder.

    Args:
        runs: runs to start.
        places: environment of each of those that run side by side; see `environments`.
        say: called with a line for every run that starts or ends.

    Raises:
        RunStopped: naming the runs that failed; the others are carried out all the same. Or after a signal, which the
            runs were told of.
    """
    failed: list[str] = []
    finished: list[Run] = []
    children = ChildProcesses(say)
    free: SimpleQueue[Place] = SimpleQueue()
    for place in places:
        free.put(Place({**os.environ, **place}, children))

    def carry_out_one(run: Run) -> None:
        place = free.get()
        try:
            is_done, is_new = _carried_out(run, place)
        except (RunStopped, UserError, OSError) as error:
            failed.append(f"{run.folder} ({error})")
        else:
            finished.extend([run] * is_done)
            if is_new:
                say(f"{run.folder}: done, {len(finished)} of {len(runs)}")
        finally:
            free.put(place)

    with children.told_to_stop(), ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(carry_out_one, runs))
    for _ in places:
        free.get().close()
    problem = f"{len(failed)} runs failed, see output.txt in their folders: {'; '.join(failed)}"
    if children.is_stopping:
        state = "at once, without saving" if children.is_cut_off else "and saved"
        raise RunStopped(f"stopped {state}; the same command goes on" + (f". {problem}" if failed else ""))
    if failed:
        raise RunStopped(problem)


class Place:
    """Where one run after another is carried out.

    Args:
        environment: environment of the runs.
        children: keeps account of what runs.
    """

    def __init__(self, environment: dict[str, str], children: ChildProcesses) -> None:
        self.environment, self.children = environment, children
        self.warm: WarmProcess | None = None

    def run(self, command: list[str], output: Path) -> int | None:
        """Runs a command and returns its exit code; None if it was not started because of a signal."""
        words = len(PROGRAM)
        if not IS_POSSIBLE or command[:words] != PROGRAM:
            with output.open("ab") as file:
                return self.children.run(command, stdout=file, stderr=file, env=self.environment)
        # Not before there is something to do: a comparison that is finished starts nothing.
        self.warm = warm = self.warm or WarmProcess(self.environment, output)
        try:
            return self.children.follow(lambda: warm.start(command[words:], output))
        except OSError:  # it is gone; the next run gets another
            self.warm = None
            raise

    def close(self) -> None:
        """Ends what was kept for the next run."""
        if self.warm is not None:
            self.warm.close()


def _carried_out(run: Run, place: Place) -> tuple[bool, bool]:
    """Carries out one run unless it is done; says whether it is done now, and whether anything was to do.

    Raises:
        RunStopped: if one of its commands failed.
        UserError: if its folder cannot be written to.
    """
    make_folder(run.folder, str(run.folder))
    wanted, mark = done_mark(run), run.folder / DONE
    is_same = mark.exists() and read_json(mark) == wanted
    if is_same and (RunFolder(run.folder).evaluation / "scores.json").exists():
        return True, False
    for command in commands(run):
        code = place.run(command, run.folder / "output.txt")
        if place.children.is_stopping:
            return False, False
        if code:
            raise RunStopped(f"{command[3]} ended with {code}")
    write_json(mark, wanted)
    return True, True
