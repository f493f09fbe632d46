"""Measures what it is worth, on a CPU, that the C library keeps freed memory: whole runs of `fit`, with and without.

``python -m benchmarks.allocator --work runs/allocator`` (four minutes on two cores)
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.scoring import STACK
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_json

WITHOUT = "import cns_lightning.diffusion.allocator as allocator; allocator.keep_freed_memory = lambda: False; "
RUN = "import sys; from cns_lightning.cli.main import main; sys.exit(main(sys.argv[1:]))"


def seconds_and_peak(run: Path, beginning: str, steps: int, batch: int) -> tuple[float, float]:
    """Learns a sequence anew; returns seconds a step and the peak of resident memory in MB."""
    shutil.rmtree(run, ignore_errors=True)
    words = [*STACK, "--data.sequence", "miniature_set1", "--steps", str(steps), "--data.batch_size", str(batch)]
    words += ["--samples.pictures", "0", "--data.augmentation.variants", "2", "--run", str(run)]
    subprocess.run([sys.executable, "-c", beginning + RUN, "fit", *words], check=True, capture_output=True)
    stages = read_json(RunFolder(run).timings)["stages"].values()
    peak = max(stage["peak_memory_bytes"]["resident"] for stage in stages) / 1e6
    return sum(stage["seconds"]["training"] for stage in stages) / len(stages) / steps, peak


def main() -> None:
    """Reads the command line, measures in alternation, and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=4)
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"given back": [], "kept": []}
    for _ in range(arguments.rounds):
        for name, beginning in (("given back", WITHOUT), ("kept", "")):
            run = arguments.work / name.replace(" ", "-")
            found[name].append(seconds_and_peak(run, beginning, arguments.steps, arguments.batch))
    medians = {name: [statistics.median(each) for each in zip(*values, strict=True)] for name, values in found.items()}
    print(json.dumps({"runs": found, "medians": medians, "batch": arguments.batch}))
    (slow, usual), (fast, peak) = medians["given back"], medians["kept"]
    print(f"a step {fast:.4f} s in place of {slow:.4f} s ({fast / slow:.3f}); peak {peak / usual:.3f} of that without")


if __name__ == "__main__":
    main()
