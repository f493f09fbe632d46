"""Measures where the time of a run goes: from the start of `fit` to its first step, by phase of a stage, within a step.

Runs `fit` on the miniature, in processes of its own: to the first step, in turn with a process that imports torch,
Lightning, diffusers and transformers and ends; and once over the seven concepts of set 1, with some steps under torch's
profiler. Phases are those of ``timings.json``.

``python -m benchmarks.stage --work runs/stage --document docs/performance.md`` (four minutes on two cores)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback
from torch.profiler import ProfilerActivity, profile

from benchmarks.scoring import STACK, check_section, command_of, write_section
from cns_lightning.module import continual
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_json, write_json

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

LIBRARIES = (
    "import torch, lightning.pytorch; from transformers import CLIPTextModel, CLIPTokenizer; "
    "from diffusers import StableDiffusionPipeline, UNet2DConditionModel, DDIMScheduler"
)
"""What no run can do without."""
FIRST_STEP, OPERATIONS = "first-step.json", "operations.json"
PROFILED = {"the token's": range(15, 25), "the neurons'": range(45, 55)}
"""Steps of the first stage under the profiler, of 60: the token learns in its first half, the neurons in the other."""
STEPS = 60
BETWEEN = "Python, between operations"
"""Lightning takes a whole step within the optimizer's, whose own time is what no operation in it takes."""
KINDS = {
    "convolutions": ("convolution", "conv2d", "mkldnn"),
    "matrix products": ("mm", "linear", "bmm", "baddbmm"),
    "attention": ("attention", "flash"),
    "norms": ("norm",),
    "SiLU, GELU": ("silu", "gelu"),
    "copies and casts": ("copy", "clone", "cat", "contiguous", "fill", "zero", "index", "scatter", "gather"),
    "sums and products of elements": ("add", "sub", "mul", "div", "sum", "mean", "pow", "sqrt", "where"),
}
"""Kinds of operations by a part of their name, the first that fits."""


class FirstStep(Callback):
    """Notes in the run folder when the first step had been taken."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Notes the time once."""
        path = Path(trainer.default_root_dir) / FIRST_STEP
        if not path.exists():
            write_json(path, {"time": time.time()})


class Operations(Callback):
    """Notes in the run folder the seconds of a step by kind of operation, for both halves of a stage."""

    def __init__(self) -> None:
        self.profile: profile | None = None
        self.found: dict[str, dict[str, float]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Starts the profiler, and ends it."""
        module = continual(pl_module)
        for name, steps in PROFILED.items() if module.stage == 0 else ():
            if module.step == steps.start:
                self.profile = profile(activities=[ProfilerActivity.CPU])
                self.profile.start()
            elif module.step == steps.stop and self.profile is not None:
                self.profile.stop()
                self.found[name] = seconds_by_kind(self.profile, len(steps))
                write_json(Path(trainer.default_root_dir) / OPERATIONS, self.found)


def seconds_by_kind(found: profile, steps: int) -> dict[str, float]:
    """Returns the seconds of a step by kind of operation."""
    seconds: dict[str, float] = {}
    for event in found.key_averages():
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "all others")
        kind = BETWEEN if name.startswith("optimizer.") else kind
        seconds[kind] = seconds.get(kind, 0.0) + event.self_cpu_time_total / 1e6 / steps
    return seconds


def fit(run: Path, *more: str, callback: type[Callback]) -> None:
    """Runs `fit` anew in a process of its own.

    Args:
        run: run folder, which is emptied.
        more: words of the command line.
        callback: one of this module, added to the run.
    """
    shutil.rmtree(run, ignore_errors=True)
    words = [*STACK, "--data.sequence", "miniature_set1", "--run", str(run), *more]
    words += ["--trainer.callbacks+", f"benchmarks.stage.{callback.__name__}"]
    command = [sys.executable, "-m", "cns_lightning", "fit", *words]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())})


def seconds_to_first_step(run: Path) -> float:
    """Returns the seconds from the start of `fit`, a new process, to the end of its first step."""
    begin = time.time()
    fit(run, "--steps", "1", "--samples.pictures", "0", callback=FirstStep)
    return read_json(run / FIRST_STEP)["time"] - begin


def seconds_of_libraries() -> float:
    """Returns the seconds of a process that imports the libraries and ends."""
    begin = time.time()
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True, capture_output=True)
    return time.time() - begin


def document(
    starts: list[float], libraries: list[float], stages: list[dict[str, float]], kinds: dict[str, dict[str, float]]
) -> str:
    """Returns the section in Markdown.

    Args:
        starts: seconds to the first step, one number per run.
        libraries: seconds of the imports alone, as many.
        stages: seconds of every stage by phase.
        kinds: seconds of a step by half of a stage and kind of operation.
    """
    start, alone = statistics.median(starts), statistics.median(libraries)
    each_start, verdict = ", ".join(f"{each:.1f}" for each in starts), "reached" if start <= 8 else "**not reached**"
    lines = [
        f"`{command_of('benchmarks.stage', sys.argv[1:])}` ({torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, seven concepts of set 1, {STEPS} steps)",
        "",
        f"From the start of `fit` to its first step: {start:.1f} s (median of {each_start}), goal at most 8: "
        f"{verdict}. "
        f"Importing torch, Lightning, diffusers and transformers alone takes {alone:.1f} s.",
        "",
        "| concept | selection, s | training, s | samples and saving, s | a step, s |",
        "|---|---:|---:|---:|---:|",
    ]
    for number in (1, len(stages) - 1):  # the profiler was at work in the first
        each = stages[number]
        lines.append(
            f"| {number + 1} | {each['selection']:.1f} | {each['training']:.1f} | {each['finish']:.1f} "
            f"| {each['training'] / STEPS:.3f} |"
        )
    lines += [
        "",
        f"| a step, ms | in {' | in '.join(f'{half} half' for half in kinds)} |",
        f"|---{'|---:' * len(kinds)}|",
    ]
    names = {name for each in kinds.values() for name in each}
    for name in sorted(names, key=lambda name: -sum(each.get(name, 0) for each in kinds.values())):
        cells = [
            f"{1e3 * each.get(name, 0):.1f} ({each.get(name, 0) / sum(each.values()):.0%})" for each in kinds.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs, which are made anew")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file for all figures as JSON")
    parser.add_argument("--document", type=Path, help="document whose section stage is replaced")
    arguments = parser.parse_args()
    if arguments.document:
        check_section(arguments.document, "stage")
    starts, libraries = [], []
    for _ in range(arguments.rounds):
        libraries.append(seconds_of_libraries())
        starts.append(seconds_to_first_step(arguments.work / "start"))
    run = arguments.work / "stages"
    fit(run, "--steps", str(STEPS), "--samples.pictures", "4", callback=Operations)
    timings = read_json(RunFolder(run).timings)["stages"]
    stages, kinds = [each["seconds"] for each in timings.values()], read_json(run / OPERATIONS)
    text = document(starts, libraries, stages, kinds)
    print(text)
    if arguments.out:
        found = {"starts": starts, "libraries": libraries, "stages": stages, "kinds": kinds}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if arguments.document:
        write_section(arguments.document, "stage", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
