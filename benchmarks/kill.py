"""Kills runs at random moments of their whole life, continues them, and compares them with an uninterrupted run.

Half of the kills fall at a random time, on one rank or on all; the other half in the middle of a write: of a
checkpoint, a file of the registry, a sheet of samples, a row of metrics, before or after a rename. After every kill
what is on disk must be whole. The model is the tiny random one: what is tested is the order of writes, not learning.

``python -m benchmarks.kill --kills 100 --work runs/kill --out docs/continuation.md``
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.killer import PLAN
from benchmarks.scoring import write_section
from cns_lightning.miniature.tiny import tiny_base_model
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.checkpoint_file import newest_checkpoint
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence, sequence_path
from cns_lightning.storage import sha256_of, write_json

CONCEPTS = 3
MOMENTS = ("0", "0.5", "0.99", "1", "rename", "renamed")
# By kind: part of the file's name, how often it is written in a run, and what can be cut short.
WRITES = {
    "a checkpoint": ("last", 60, MOMENTS),
    "the checkpoint before the last": ("previous.ckpt", 60, ("rename", "renamed")),
    "a stage's checkpoint": ("-0.ckpt", 1, MOMENTS),
    "a concept's file": ("-new", 3, MOMENTS),
    "registry.json": ("registry.json", 4, MOMENTS),
    "the general neurons": ("general", 1, MOMENTS),
    "a sheet of samples": (".png", 3, MOMENTS),
    "a row of metrics": ("metrics", 12, ("0", "0.5", "0.99", "1")),
    "the metrics as a whole": ("metrics.csv", 1, ("rename", "renamed")),
    "the configuration": ("config.yaml", 1, MOMENTS),
    "the timings": ("timings.json", 9, MOMENTS),
}


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: by kind.
        resumes: starts that went on from something.
        runs: runs that came to their end.
        differences: files that were not those of the uninterrupted run, and files found damaged after a kill.
    """

    kills: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    runs: int = 0
    differences: list[str] = field(default_factory=list)


class Bench:
    """Runs of one number of ranks.

    Args:
        work: folder of everything.
        ranks: processes of a run.
        steps: number of steps of every stage.
        generator: generator of the moments.
    """

    def __init__(self, work: Path, ranks: int, steps: int, generator: random.Random) -> None:
        self.work, self.ranks, self.steps, self.random = work, ranks, steps, generator
        self.base, self.sequence = work / "tiny", work / "sequence.yaml"
        if not self.base.exists():
            tiny_base_model(self.base)
        shipped = Sequence.read(sequence_path("miniature_set1")).plain()
        shipped["concepts"] = shipped["concepts"][:CONCEPTS]
        self.sequence.write_text(yaml.safe_dump({**shipped, "prompts": EMPTY}), "utf-8")
        self.tally = Tally()

    def command(self, run: Path) -> list[str]:
        """Returns the command line of a run."""
        words = (
            f"fit --config configs/methods/cns.yaml --config configs/hardware/cpu.yaml --model.base_model {self.base} "
            f"--data.sequence {self.sequence} --data.batch_size 2 --data.augmentation.variants 2 --steps {self.steps} "
            f"--trainer.devices {self.ranks} --checkpoint.every_steps 1 --metrics.every_steps 5 --samples.pictures 2 "
            f"--samples.steps 2 --trainer.callbacks+=benchmarks.killer.KillDuringWrites --run {run}"
        )
        return [sys.executable, "-m", "cns_lightning", *words.split()]

    def start(self, run: Path, plan: str | None = None) -> subprocess.Popen[bytes]:
        """Starts a run in a process group of its own."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GLOO_SOCKET_IFNAME": "lo"}
        if plan is not None:
            environment[PLAN] = plan
        with (self.work / "output.txt").open("ab") as output:
            return subprocess.Popen(
                self.command(run), env=environment, stdout=output, stderr=output, start_new_session=True
            )

    def reference(self) -> tuple[dict[str, str], float]:
        """Returns the checksums of an uninterrupted run and its seconds."""
        run = self.work / f"uninterrupted-{self.ranks}"
        shutil.rmtree(run, ignore_errors=True)
        begin = time.monotonic()
        if self.start(run).wait() != 0:
            raise RuntimeError(f"the uninterrupted run failed; see {self.work / 'output.txt'}")
        return contents(run), time.monotonic() - begin

    def kill_until(self, kills: int) -> None:
        """Kills, continues and compares, until so many kills have happened."""
        expected, seconds = self.reference()
        while sum(self.tally.kills.values()) < kills:
            run = self.work / f"run-{self.ranks}-{self.tally.runs}"
            shutil.rmtree(run, ignore_errors=True)
            while self.interrupted(run, seconds, sum(self.tally.kills.values()) < kills):
                self.look_at(run)
            found = contents(run)
            self.tally.runs += 1
            for name in sorted(expected.keys() | found.keys()):
                if expected.get(name) != found.get(name):
                    self.tally.differences.append(f"{run.name}: {name}")
            if not any(difference.startswith(run.name) for difference in self.tally.differences):
                shutil.rmtree(run)
            write_json(self.work / f"kills-{self.ranks}.json", vars(self.tally))
            sys.stderr.write(f"{self.ranks} rank(s): {sum(self.tally.kills.values())} kills, {self.tally.runs} runs\n")

    def interrupted(self, run: Path, seconds: float, may_kill: bool) -> bool:
        """Starts a run or continues it, perhaps to a kill; says whether it was killed."""
        self.tally.resumes += RunFolder(run).last_checkpoint.exists()
        if not may_kill:
            process = self.start(run)
        elif self.random.random() < 0.5:
            kind = self.random.choice(list(WRITES))
            name, count, moments = WRITES[kind]
            plan = f"{name}:{self.random.randint(1, count)}:{self.random.choice(moments)}"
            process = self.start(run, plan)
        else:
            process = self.start(run)
            kind = self.killed_at(process, self.random.uniform(0, seconds))
        code = process.wait()
        if code == 0:
            return False
        if not may_kill or kind is None:
            raise RuntimeError(f"{run} ended with {code} by itself; see {self.work / 'output.txt'}")
        self.tally.kills[kind] += 1
        kill_group(process.pid)
        return True

    def killed_at(self, process: subprocess.Popen[bytes], moment: float) -> str | None:
        """Kills one rank, or all, after some seconds; None if the run was over by then."""
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            victims = {"rank 0": [process.pid], "all ranks": [process.pid, *map(int, children)]}
            if children and self.ranks > 1:
                victims["rank 1"] = [int(children[0])]
            name = self.random.choice(list(victims)) if self.ranks > 1 else "rank 0"
            for victim in victims[name]:
                os.kill(victim, signal.SIGKILL)
            return f"{name} at any time"
        return None

    def look_at(self, run: Path) -> None:
        """Notes what is not whole after a kill."""
        folder = RunFolder(run)
        if (folder.registry / "registry.json").exists():
            registry = NeuronRegistry.load(folder.registry)
            damaged = [
                entry.file for entry in registry.entries if sha256_of(folder.registry / entry.file) != entry.sha256
            ]
            self.tally.differences += [f"{run.name}: {name} is damaged" for name in damaged]
        said: list[str] = []
        newest_checkpoint(folder.last_checkpoint, said.append)
        self.tally.differences += said


EMPTY = {"single": [], "double": [], "triple": []}


def kill_group(group: int) -> None:
    """Ends what is left of a process group."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def contents(run: Path) -> dict[str, str]:
    """Returns the checksums of everything that must be the same: registry, rows, samples."""
    kept = [run / "metrics.csv", *(run / "registry").iterdir(), *(run / "samples").iterdir()]
    return {str(path.relative_to(run)): sha256_of(path) for path in kept if not path.name.startswith(".")}


def spoken(kind: str) -> str:
    """Says where a kill fell."""
    return f"while writing {kind}" if kind in WRITES else kind


def table(tallies: dict[int, Tally]) -> str:
    """Returns the result in Markdown."""
    kinds = sorted({kind for tally in tallies.values() for kind in tally.kills})
    ranks = list(tallies)
    lines = [
        f"| | {' | '.join('1 rank' if number == 1 else f'{number} ranks' for number in ranks)} |",
        f"|---|{'---:|' * len(ranks)}",
    ]
    rows: dict[str, list[int]] = {
        f"killed: {spoken(kind)}": [tallies[number].kills[kind] for number in ranks] for kind in kinds
    }
    rows["kills"] = [sum(tallies[number].kills.values()) for number in ranks]
    rows["starts that went on from a checkpoint"] = [tallies[number].resumes for number in ranks]
    rows["runs that came to their end"] = [tallies[number].runs for number in ranks]
    rows["**differences**"] = [len(tallies[number].differences) for number in ranks]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(map(str, row))} |" for name, row in rows.items())])


def main() -> int:
    """Runs the benchmark; the exit code says whether there was a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=20, help="of every stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/kill"))
    parser.add_argument("--out", type=Path, help="document whose section `kills` is replaced")
    arguments = parser.parse_args()
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    tallies = {}
    for number, ranks in enumerate(arguments.ranks):
        bench = Bench(work, ranks, arguments.steps, random.Random(f"{arguments.seed} {ranks}"))
        share = arguments.kills // len(arguments.ranks) + (number < arguments.kills % len(arguments.ranks))
        bench.kill_until(share)
        tallies[ranks] = bench.tally
    text = table(tallies) + "\n"
    print(text, end="")
    for tally in tallies.values():
        print(*tally.differences, sep="\n")
    if arguments.out:
        command = " ".join(["python -m benchmarks.kill", *sys.argv[1:]])
        write_section(arguments.out, "kills", f"`{command}`\n\n{text}")
    return int(any(tally.differences for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
