"""Learns a hundred concepts on the miniature and compares what the last ones cost with what the first ones did.

Writes the section `growth` of docs/continuation.md. The first concept is left out: it also pays for the general neurons
and for the first use of everything.

``python -m benchmarks.growth --work runs/growth --out docs/continuation.md`` (about a quarter of an hour on one thread)
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.scoring import write_section
from cns_lightning.cli.main import main as command_line
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.checkpoint_file import SealedCheckpointIO
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence, sequence_path
from cns_lightning.storage import read_json

SETS = ("miniature_set1", "miniature_set2", "miniature_set3")
GROUP = 10


def write_sequence(path: Path, count: int) -> None:
    """Writes a sequence of many concepts: those that ship, again and again under other tokens."""
    shipped = [concept for name in SETS for concept in Sequence.read(sequence_path(name)).plain()["concepts"]]
    concepts = [{**shipped[number % len(shipped)], "token": f"<c{number:03d}>"} for number in range(count)]
    prompts: dict[str, list[str]] = {"single": [], "double": [], "triple": []}
    path.write_text(yaml.safe_dump({"name": "many", "concepts": concepts, "prompts": prompts}), "utf-8")


class Clock:
    """Adds up the seconds that functions take, by the number of concepts in the registry."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds: dict[int, float] = defaultdict(float)

    def timed(self, function: Callable[..., Any], finishes: bool = False) -> Callable[..., Any]:
        """Returns the function with a clock.

        Args:
            function: to be timed.
            finishes: its end makes the registry one concept longer.
        """

        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            begin = time.perf_counter()
            given = function(*arguments, **keywords)
            if finishes:
                self.count += 1
            self.seconds[self.count] += time.perf_counter() - begin
            return given

        return wrapper


def learn(work: Path, count: int, steps: int) -> tuple[Path, Clock]:
    """Learns the sequence in the demo's setting and gives the run folder and the seconds of saving."""
    run, sequence = work / "run", work / "sequence.yaml"
    shutil.rmtree(run, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    write_sequence(sequence, count)
    clock = Clock()
    NeuronRegistry.add = clock.timed(NeuronRegistry.add, finishes=True)
    SealedCheckpointIO.save_checkpoint = clock.timed(SealedCheckpointIO.save_checkpoint)
    words = f"fit --config configs/experiments/demo.yaml --data.sequence {sequence} --steps {steps}"
    if command_line([*words.split(), *"--samples.pictures 0 --monitor.pictures 0".split(), "--run", str(run)]) != 0:
        raise RuntimeError("the run failed")
    return run, clock


def rows(run: Path, clock: Clock, steps: int) -> dict[str, list[float]]:
    """Returns what every concept cost, by what it is."""
    stages = read_json(RunFolder(run).timings)["stages"]
    ordered = [stages[str(number)] for number in range(len(stages))]
    return {
        "selection, s": [stage["seconds"]["selection"] for stage in ordered],
        "a step, s": [stage["seconds"]["training"] / steps for stage in ordered],
        "saving registry and checkpoints, s": [clock.seconds[number + 1] for number in range(len(ordered))],
        "all of the stage's end, s": [stage["seconds"]["finish"] for stage in ordered],
        "all of a stage, s": [sum(stage["seconds"].values()) for stage in ordered],
        "peak memory so far, MB": [stage["peak_memory_bytes"]["resident"] / 1e6 for stage in ordered],
        "on disk, kB": [entry.bytes / 1e3 for entry in NeuronRegistry.load(RunFolder(run).registry).entries],
    }


def loading(run: Path) -> tuple[float, float]:
    """Returns the seconds of opening the registry, and of opening it, reading every file and replaying all weights."""
    base = {
        name: each.weight.detach().float().clone()
        for name, each in key_value_projections(BaseModel.load("miniature").unet).items()
    }
    begin = time.perf_counter()
    registry = NeuronRegistry.load(RunFolder(run).registry)
    opened = time.perf_counter() - begin
    registry.weights(base=base)
    for token in registry.tokens:
        registry.embedding(token)
    return opened, time.perf_counter() - begin


def table(run: Path, clock: Clock, steps: int) -> str:
    """Returns the result in Markdown."""
    costs = rows(run, clock, steps)
    count = len(costs["a step, s"])
    lines = [
        f"| median of ten concepts | 2 to {GROUP + 1} | {count - GROUP + 1} to {count} | ratio |",
        "|---|---:|---:|---:|",
    ]
    for name, values in costs.items():
        first, last = statistics.median(values[1 : GROUP + 1]), statistics.median(values[-GROUP:])
        lines.append(f"| {name} | {first:.4g} | {last:.4g} | {last / first:.3f} |")
    opened, whole = loading(run)
    lines += [
        "",
        f"A registry of {count} concepts opens in {opened:.2f} s; opened, every file read and checked and all weights "
        f"replayed: {whole:.2f} s.",
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20, help="of every stage")
    parser.add_argument("--work", type=Path, default=Path("runs/growth"))
    parser.add_argument("--out", type=Path, help="document whose section `growth` is replaced")
    arguments = parser.parse_args()
    run, clock = learn(arguments.work.absolute(), arguments.concepts, arguments.steps)
    text = table(run, clock, arguments.steps)
    print(text, end="")
    if arguments.out:
        threads = os.environ.get("OMP_NUM_THREADS", "default")
        command = f"OMP_NUM_THREADS={threads} python -m benchmarks.growth {' '.join(sys.argv[1:])}"
        write_section(arguments.out, "growth", f"`{command}`\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
