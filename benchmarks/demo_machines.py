"""Runs the demo as other machines would, and with other seeds: does everyone get every concept?

Another machine is stood in for by what differs between machines: the number of threads, and the instructions that torch
and oneDNN may use. Each run is its own process. Writes the section `machines` of a document.

``python -m benchmarks.demo_machines --work runs/machines --out docs/miniature.md`` (ten minutes a row on two cores)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.scoring import GUIDANCE, check_section, write_section
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_json

PLAIN = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"}
"""What a processor without AVX-512 and without bf16 instructions would run."""
MACHINES: dict[str, dict[str, str]] = {
    "this machine, two threads": {"OMP_NUM_THREADS": "2"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads, AVX2 alone": {"OMP_NUM_THREADS": "2", **PLAIN},
    "one thread, AVX2 alone": {"OMP_NUM_THREADS": "1", **PLAIN},
}


def command(words: list[str], machine: dict[str, str]) -> None:
    """Runs one of our commands as a machine would.

    Raises:
        subprocess.CalledProcessError: if it fails.
    """
    environment = {**os.environ, **machine}
    subprocess.run([sys.executable, "-m", "cns_lightning", *words], env=environment, check=True)


def run_demo(run: Path, seed: int, machine: dict[str, str], given: list[str]) -> dict[str, Any]:
    """Learns and scores the demo, or what is missing of it; returns its scores."""
    scores = RunFolder(run).evaluation / "scores.json"
    if not scores.exists():
        words = ["--config", "configs/experiments/demo.yaml", "--seed_everything", str(seed), "--run", str(run)]
        command(["fit", *words, "--monitor.pictures", "0", *given], machine)
        drawn = ["--pictures", "4", "--matrix-pictures", "0", "--look-alikes", "0", "--batch-size", "40"]
        command(["test", "--run", str(run), *drawn, "--guidance", str(GUIDANCE)], machine)
    return read_json(scores)


def difference(one: Path, two: Path) -> float:
    """Computes the mean absolute difference of two sheets, in levels of 255."""
    first, second = (np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) for path in (one, two))
    return float(np.abs(first - second).mean())


def row(name: str, scores: dict[str, Any], changed: float | None) -> str:
    """Returns a line of the table."""
    found = scores["identity"]["among_photos"]
    each = [found["concepts"][token]["top1"] for token in scores["learned"]]
    clip_i = [scores["concepts"][token]["clip_i"] for token in scores["learned"]]
    cells = [name, f"{found['top1']:.3f}", f"{min(each):.2f} ({scores['learned'][each.index(min(each))]})"]
    cells += [f"{value:.3f}" for value in clip_i] + ["" if changed is None else f"{changed:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Reads the command line, runs what is missing, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of runs; finished ones are not repeated")
    parser.add_argument("--out", type=Path, help="document whose section `machines` is replaced")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of this machine; the others take 0")
    parser.add_argument("--given", nargs="*", default=[], help="further words for fit")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, "machines")
    reference = next(iter(MACHINES))
    wanted = [(name, 0) for name in MACHINES] + [(reference, seed) for seed in arguments.seeds if seed]
    rows, first = [], None
    for name, seed in wanted:
        run = arguments.work / f"{name.replace(' ', '-').replace(',', '')}-seed-{seed}"
        scores = run_demo(run, seed, MACHINES[name], arguments.given)
        sheet = RunFolder(run).sample_sheet(len(scores["learned"]) - 1)
        rows.append(row(f"{name}, seed {seed}", scores, difference(first, sheet) if first and not seed else None))
        first = first or sheet
    head = ["run", "identity top-1", "least", *scores["learned"], "sheet differs by, of 255"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]
    text = "\n".join(
        [
            f"`{' '.join(['python -m benchmarks.demo_machines', *sys.argv[1:]])}`",
            "",
            *lines,
            "",
            "Identity: is a picture nearest to its own concept's photos among those of all seven? 4 pictures of every "
            "single prompt; then CLIP-I of each concept. The sheets are those after the last stage.",
            "",
        ]
    )
    print(text)
    if arguments.out:
        write_section(arguments.out, "machines", text)


if __name__ == "__main__":
    main()
