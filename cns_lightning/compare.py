"""Several methods on the same sequences, seeds and prompts: every run a folder of `fit`, scored by `test`.

Each run is a process of its own, so that its peak memory is its own; what is finished is not repeated.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import yaml

from cns_lightning.errors import Faults, RunStopped, UserError
from cns_lightning.sequence import Sequence, sequence_path
from cns_lightning.storage import read_json, write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEYS = ("stack", "methods", "alone", "sets", "seeds", "fit", "test")


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        stack: configuration files under every method: base model, hardware.
        methods: by name, the files on top.
        values: by name, values by configuration key, on top of the files.
        alone: name of the method with which each concept is also trained by itself, which forgets nothing; None leaves
            this bound out.
        sets: sequence files.
        seeds: of every draw.
        fit: further arguments of every ``fit``.
        test: arguments of every ``test``.
    """

    stack: tuple[str, ...]
    methods: dict[str, tuple[str, ...]]
    alone: str | None = None
    sets: tuple[str, ...] = ("miniature_set1",)
    seeds: tuple[int, ...] = (0,)
    fit: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    values: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Comparison:
        """Reads a configuration.

        Raises:
            UserError: listing every fault.
        """
        try:
            content = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(
                str(path),
                f"cannot be read ({str(error).splitlines()[0]})",
                "Give a comparison file, as in configs/experiments",
            ) from error
        if not isinstance(content, dict):
            raise UserError(str(path), "holds no keys", f"Give {', '.join(KEYS)}")
        return cls.of(content, path)

    @classmethod
    def of(cls, content: dict[str, Any], path: Path) -> Comparison:
        """Makes one of what a configuration file says; raises what `read` raises."""
        faults = Faults()
        for key in content:
            if key not in KEYS:
                faults.add(f"{path}: {key}", "is no known key", f"Use {', '.join(KEYS)}")
        for key in ("stack", "methods"):
            if not content.get(key):
                faults.add(f"{path}: {key}", "is missing", "See configs/experiments/compare_quick.yaml")
        faults.raise_if_any()
        given = {name: each if isinstance(each, dict) else {"files": each} for name, each in content["methods"].items()}
        for name, each in given.items():
            if not each.get("files") or each.keys() - {"files", "values"}:
                faults.add(f"{path}: methods.{name}", "needs files, and may have values", "Give a list of files")
        faults.raise_if_any()
        methods = {name: tuple(each["files"]) for name, each in given.items()}
        values = {name: each["values"] for name, each in given.items() if each.get("values")}
        for file in {file for files in (content["stack"], *methods.values()) for file in files}:
            if not Path(file).exists():
                faults.add(f"{path}: {file}", "there is no such file", "Paths are relative to where the command runs")
        if content.get("alone") not in (None, *methods):
            faults.add(f"{path}: alone", f"is {content['alone']}, none of the methods", f"Use {', '.join(methods)}")
        faults.raise_if_any()
        listed = {key: tuple(map(str, content.get(key) or ())) for key in ("fit", "test")}
        return cls(
            tuple(content["stack"]), methods, content.get("alone"),
            tuple(content.get("sets") or ("miniature_set1",)), tuple(content.get("seeds") or (0,)), **listed,
            values=values,
        )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        method: its name, or the name of the bound.
        set_name: of the sequence.
        seed: of every draw.
        folder: run folder.
        sequence: sequence file.
        files: configuration files, in order.
        fit: further arguments of ``fit``.
        test: arguments of ``test``.
    """

    method: str
    set_name: str
    seed: int
    folder: Path
    sequence: str
    files: tuple[str, ...] = field(repr=False)
    fit: tuple[str, ...] = field(repr=False)
    test: tuple[str, ...] = field(repr=False)


ALONE = "alone"
DONE = "compared.json"
"""Holds what has been carried out in a run folder; see `done_mark`."""


def runs_of(comparison: Comparison, out: Path) -> list[Run]:
    """Lists the runs; writes a sequence file for each concept that is trained by itself.

    Raises:
        UserError: if a sequence file is wrong or files cannot be written.
    """
    found = []
    for given in comparison.sets:
        path = sequence_path(given)
        sequence, name = Sequence.read(path), path.stem
        for seed in comparison.seeds:
            for method, files in comparison.methods.items():
                folder = out / method / name / f"seed-{seed}"
                stacked = (*comparison.stack, *files)
                learned = str(path.absolute())
                fit = (*comparison.fit, *as_arguments(comparison.values.get(method, {})))
                found.append(Run(method, name, seed, folder, learned, stacked, fit, comparison.test))
            if comparison.alone is None:
                continue
            stacked = (*comparison.stack, *comparison.methods[comparison.alone])
            fit = (*comparison.fit, *as_arguments(comparison.values.get(comparison.alone, {})))
            for single in alone_sequences(sequence, out / ALONE / name):
                folder = out / ALONE / name / f"seed-{seed}" / single.stem
                test = (*comparison.test, "--matrix-pictures", "0")
                found.append(Run(ALONE, name, seed, folder, str(single), stacked, fit, test))
    return found


def as_arguments(values: dict[str, Any]) -> tuple[str, ...]:
    """Gives values by configuration key as words of a command line."""
    return tuple(word for key, value in values.items() for word in (f"--{key}", str(value)))


def alone_sequences(sequence: Sequence, folder: Path) -> list[Path]:
    """Writes a sequence file of one concept for every concept, with the prompts that name it alone."""
    paths = []
    for number, concept in enumerate(sequence.plain()["concepts"]):
        own = [prompt for prompt in sequence.prompts.single if concept["token"] in prompt]
        content = {
            "name": f"{sequence.name}-{number}", "concepts": [concept],
            "prompts": {"single": own, "double": [], "triple": []},
        }  # fmt: skip
        paths.append(folder / f"concept-{number}.yaml")
        write_atomically(paths[-1], yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())
    return paths


def commands(run: Run) -> list[list[str]]:
    """Gives the command lines of a run: learn, then score."""
    program = [sys.executable, "-m", "cns_lightning"]
    stacked = [word for file in run.files for word in ("--config", file)]
    fit = [*program, "fit", *stacked, "--data.sequence", run.sequence, "--seed_everything", str(run.seed)]
    test = [*program, "test", "--run", str(run.folder), *run.test]
    return [[*fit, *run.fit, "--run", str(run.folder)], test]


def environments(jobs: int, gpus: int, cores: int, given: Mapping[str, str]) -> list[dict[str, str]]:
    """Gives what each of the runs side by side finds in its environment besides the usual: its GPU, or its threads.

    Args:
        jobs: runs side by side; 0 stands for one a GPU, or one a core where there is none.
        gpus: that this process sees.
        cores: of this machine.
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
    """Gives what a finished run was asked for: its commands and what stood in its files."""
    files = {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in (*run.files, run.sequence)}
    return {"commands": [command[3:] for command in commands(run)], "files": files}


def carry_out(runs: list[Run], places: list[dict[str, str]], say: Callable[[str], None]) -> None:
    """Runs everything, some side by side; what a run prints goes to ``output.txt`` in its folder.

    Args:
        runs: what is run.
        places: environment of each of those that run side by side; see `environments`.
        say: told what is done.

    Raises:
        RunStopped: naming the runs that failed; the others are carried out all the same.
    """
    failed: list[str] = []
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for place in places:
        free.put(place)

    def carry_out_one(run: Run) -> None:
        place = free.get()
        try:
            carry_out_in(run, {**os.environ, **place})
        finally:
            free.put(place)

    def carry_out_in(run: Run, environment: dict[str, str]) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        wanted, mark = done_mark(run), run.folder / DONE
        if mark.exists() and read_json(mark) == wanted:
            return
        with (run.folder / "output.txt").open("ab") as output:
            for command in commands(run):
                done = subprocess.run(command, stdout=output, stderr=output, env=environment, check=False)
                if done.returncode:
                    failed.append(f"{run.folder} ({command[3]} ended with {done.returncode})")
                    return
        write_json(mark, wanted)
        say(f"{run.folder}: done")

    with ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(carry_out_one, runs))
    if failed:
        raise RunStopped(f"{len(failed)} runs failed, see output.txt in their folders: {'; '.join(failed)}")
