"""Measures a training step at Stable Diffusion's shapes against the loops that most people run, and its limits.

``fit`` itself learns a concept on a base model with random weights. Every few steps it stands still, and other loops
train on the same UNet: our own maths without the framework, peft's LoRA, Custom Diffusion (`benchmarks.loops`). So all
are timed in turn within one process, round after round, and the median of rounds counts. Modes: ``plain``, what `fit`
does as the shipped configurations stand; ``fast``, the frozen base model in bfloat16 and channels_last; ``compiled``,
`training.compile` on top of that; ``captured``, `training.cuda_graph` instead; ``both``. The other loops are always
those of ``fast``, neither compiled nor captured. Not timed: reading and encoding pictures, selecting neurons, the first
step after a pause. Nothing is fetched.

``python -m benchmarks.step --shapes sd15 --size 512 --batch 1 8`` on a GPU, ``--size 128 --batch 1`` on a processor
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import yaml
from lightning.pytorch import Callback

from benchmarks.loops import BareLoop, Batch, CustomDiffusionLoop, Loop, LoraLoop, aside, seconds_of, wait_for
from benchmarks.memory import PeakMemory
from benchmarks.scoring import check_section, command_of, write_section
from benchmarks.shapes import SHAPES, random_base
from cns_lightning import ConceptDataModule, ContinualPersonalization, continual_trainer
from cns_lightning.callbacks.importance_scoring import ImportanceScoring
from cns_lightning.callbacks.mask_freezing import MaskFreezing
from cns_lightning.callbacks.metrics_table import MetricsTable
from cns_lightning.callbacks.sample_grid import SampleGrid
from cns_lightning.callbacks.step_mode import StepMode
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.methods.cns import ConceptNeuronSelection
from cns_lightning.module import continual
from cns_lightning.sequences.sequence import Sequence, sequence_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from collections.abc import Sequence as Several

    from lightning.pytorch import LightningModule, Trainer

FIT, LORA = "fit", LoraLoop.name


@dataclass(frozen=True)
class Mode:
    """How `fit` runs a step."""

    dtype: str = "bfloat16"
    channels_last: bool = True
    compile: bool = False
    cuda_graph: bool = False


MODES = {
    "plain": Mode("float32", channels_last=False),
    "fast": Mode(),
    "compiled": Mode(compile=True),
    "captured": Mode(cuda_graph=True),
    "both": Mode(compile=True, cuda_graph=True),
}
PROMPTS = ("a cat", "a red car", "a house by a lake", "two people in a street", "a tree", "a cup on a table",
           "a mountain in the snow", "a bird in the sky")  # fmt: skip
"""Few, because the selection is not what is measured here."""


class Rounds(Callback):
    """Stops `fit` every few steps and lets the other loops train; keeps what every loop took.

    Attributes:
        seconds: seconds of a step by loop, one number per round.
        peaks: most bytes by loop.
        parts: seconds of the parts of our step.
        operations: floating-point operations of one of our steps, forward and back.
        density: share of the key and value weights that is trained.

    Args:
        samples: number of samples of a step.
        precision: Lightning's word for the precision of a step.
        rounds: number of rounds.
        steps: steps of every loop that are timed in a round.
        is_captured: whether `fit` replays CUDA graphs.
    """

    def __init__(self, samples: int, precision: str, rounds: int, steps: int, is_captured: bool = False) -> None:
        self.is_captured = is_captured
        self.samples, self.precision, self.rounds, self.steps = samples, precision, rounds, steps
        self.seconds: dict[str, list[float]] = {}
        self.peaks: dict[str, int | None] = {}
        self.parts: dict[str, float] = {}
        self.operations, self.density = 0, 0.0
        self.seen, self.begin = 0, 0.0
        self.memory: PeakMemory | None = None
        self.loops: list[Loop] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Times the steps after the first of a round; the other loops follow the last."""
        module = continual(pl_module)
        self.seen += 1
        if self.seen == 1:
            wait_for(module.device)
            self.memory, self.begin = PeakMemory(module.device, 0, self.is_captured), time.perf_counter()
        if self.seen == 1 + self.steps and self.memory is not None:
            wait_for(module.device)
            self._note(FIT, (time.perf_counter() - self.begin) / self.steps, self.memory.peak())
            with torch.enable_grad(), aside(module.base):
                self._others(module)
            self.seen = 0

    def _note(self, name: str, seconds: float, peak: int | None) -> None:
        self.seconds.setdefault(name, []).append(seconds)
        self.peaks[name] = None if peak is None else max(peak, self.peaks.get(name) or 0)

    def _others(self, module: ContinualPersonalization) -> None:
        base, mask = module.base, module.concept_neurons[module.concept.token]
        is_first = not self.loops
        self.loops = self.loops or [
            BareLoop(base, self.samples, self.precision, mask),
            LoraLoop(base, self.samples, self.precision),
            CustomDiffusionLoop(base, self.samples, self.precision),
        ]
        # Every other round backwards, so that none always follows the same one.
        for loop in self.loops if len(self.seconds[FIT]) % 2 else self.loops[::-1]:
            memory = PeakMemory(base.device, weights_bytes(base))
            with loop.in_place():
                loop.step()
                seconds = seconds_of(loop.step, base.device, self.steps)
                self._note(loop.name, seconds, memory.peak())
                if is_first and isinstance(loop, BareLoop):
                    self.density = mask.count() / mask.total()
                    self.parts = loop.parts(partial(least_seconds_of, base.device))
                    self.operations = operations_of(loop)


def weights_bytes(base: BaseModel) -> int:
    """Returns the bytes of UNet and text encoders."""
    parts = [base.unet, *base.text_encoders]
    return sum(each.numel() * each.element_size() for part in parts for each in part.parameters())


def least_seconds_of(device: torch.device, act: Callable[[], Any]) -> float:
    """Returns the least seconds of a function out of three on a GPU, of one on a processor, where it takes long."""
    return min(seconds_of(act, device) for _ in range(3 if device.type == "cuda" else 1))


def operations_of(loop: Loop) -> int:
    """Returns the floating-point operations of a step: products, convolutions and attention, forward and back.

    Those of a single sample, times the samples: what is counted needs all of attention's matrices at once.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter, samples, batches = FlopCounterMode(display=False), loop.samples, loop.batches
    loop.samples, loop.batches = 1, [Batch.random(loop.base, 1, 0)]
    # Attention as plain products, which the counter knows on every device; the number is the same.
    with counter, sdpa_kernel(SDPBackend.MATH):
        loop.step()
    loop.samples, loop.batches = samples, batches
    return samples * counter.get_total_flops()


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the operations a second of a large matrix product, the best of five."""
    side = 8192 if device.type == "cuda" else 2048
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / min(seconds_of(lambda: first @ second, device) for _ in range(5))


def measure(arguments: argparse.Namespace, mode: str, samples: int, work: Path) -> dict[str, Any]:
    """Learns one concept with `fit`, the other loops in between, and returns what was measured."""
    device = torch.device(arguments.device)
    chosen = MODES[mode]
    precision = "32-true" if device.type == "cpu" and mode == "plain" else "bf16-mixed"
    base = random_base(arguments.shapes, arguments.size, device)
    base._fingerprints = ("random", "random")  # to hash gigabytes of noise serves nobody
    rounds = Rounds(samples, precision, arguments.rounds, arguments.steps, chosen.cuda_graph)
    module = ContinualPersonalization(
        ConceptNeuronSelection(token_start="class_word", balance_steps=1),
        base_model=f"random {arguments.shapes}",
        base_dtype=cast("Any", chosen.dtype),
        channels_last=chosen.channels_last,
    )
    data = ConceptDataModule(
        str(write_sequence(work)), batch_size=samples, steps=arguments.rounds * (1 + arguments.steps)
    )
    calibration = work / "calibration.txt"
    calibration.write_text("\n".join(PROMPTS), "utf-8")
    callbacks = [
        ImportanceScoring(str(calibration)), MaskFreezing(), SampleGrid(pictures=0),
        # Timed by itself and named beside: a share of it falls on every step, in whichever round it happens to lie.
        MetricsTable(fixed_noise_every_steps=0), StepMode(chosen.compile, chosen.cuda_graph), rounds,
    ]  # fmt: skip
    trainer = continual_trainer(
        work / f"{mode}-{samples}", callbacks, accelerator="gpu" if device.type == "cuda" else "cpu", devices=1,
        precision=precision,
    )  # fmt: skip
    loaded, BaseModel.load = BaseModel.load, staticmethod(lambda *_, **__: base)  # type: ignore[method-assign]
    try:
        trainer.fit(module, data)
    finally:
        BaseModel.load = loaded  # type: ignore[method-assign]
    return {
        "mode": mode, "batch": samples, "precision": precision, "base_dtype": chosen.dtype,
        "channels_last": chosen.channels_last, "density": rounds.density, "operations": rounds.operations,
        "parts": rounds.parts,
        "loops": {
            name: {
                "seconds": statistics.median(found), "all_seconds": found, "peak_bytes": rounds.peaks[name],
                "samples_per_second": samples / statistics.median(found),
            }
            for name, found in rounds.seconds.items()
        },
    }  # fmt: skip


def write_sequence(work: Path) -> Path:
    """Writes a sequence of the first concept that ships."""
    concepts = Sequence.read(sequence_path("miniature_set1")).plain()["concepts"][:1]
    prompts: dict[str, list[str]] = {"single": [], "double": [], "triple": []}
    path = work / "sequence.yaml"
    path.write_text(yaml.safe_dump({"name": "one", "concepts": concepts, "prompts": prompts}), "utf-8")
    return path


def machine(device: torch.device) -> dict[str, Any]:
    """Returns what is said of the machine."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
        named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        name = next(named, platform.processor() or platform.machine())
    return {
        "device": name, "processors": os.cpu_count(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "matrix_rate": {
            "bfloat16": matrix_rate(device, torch.bfloat16), "float32": matrix_rate(device, torch.float32),
        },
    }  # fmt: skip


def ratio(found: dict[str, Any], name: str, other: str) -> float:
    """Returns how many times as many samples a second one loop takes as another."""
    return found["loops"][name]["samples_per_second"] / found["loops"][other]["samples_per_second"]


def table(found: dict[str, Any], rate: float) -> str:
    """Returns one mode and batch size in Markdown.

    Args:
        found: what `measure` returned.
        rate: measured operations a second of a matrix product in the mode's precision.
    """
    head = f"{found['mode']}: base {found['base_dtype']}" + (", channels_last" if found["channels_last"] else "")
    lines = [
        f"| {head}, {found['precision']}, batch {found['batch']} | samples/s | x {LORA} | ms a step | peak GiB |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, each in found["loops"].items():
        peak = "-" if each["peak_bytes"] is None else f"{each['peak_bytes'] / 2**30:.2f}"
        cells = (f"{each['samples_per_second']:.3f}", f"{ratio(found, name, LORA):.2f}",
                 f"{1e3 * each['seconds']:.1f}", peak)  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    bare = found["loops"][BareLoop.name]["seconds"]
    shares = ", ".join(f"{name} {100 * seconds / bare:.1f} %" for name, seconds in found["parts"].items())
    done = found["operations"] / found["loops"][FIT]["seconds"]
    lines += [
        "",
        f"{100 * found['density']:.1f} % of the key and value weights are trained. Share of the bare loop's step, each "
        f"by itself: {shares}. `fit` does {found['operations'] / 1e12:.3f} TFLOP a step, {100 * done / rate:.0f} % of "
        f"the measured rate of a matrix product ({rate / 1e12:.2f} TFLOP/s).",
    ]
    return "\n".join(lines)


def goals(results: Several[dict[str, Any]], rates: dict[str, float], is_gpu: bool) -> Iterator[str]:
    """Yields a line for every goal: what was asked, what was seen."""
    for found in results:
        where = f"{found['mode']}, batch {found['batch']}"
        fit, bare = found["loops"][FIT]["seconds"], found["loops"][BareLoop.name]["seconds"]
        extra = found["parts"]["loss on fixed noise, a step's share"]
        yield goal(f"{where}: `fit` over the bare loop", fit / bare, 1.05, "at most")
        yield goal(f"{where}: the same with the loss on fixed noise", (fit + extra) / bare, 1.05, "at most")
        if not is_gpu and found["mode"] == "plain":
            for name in (LORA, CustomDiffusionLoop.name):
                yield goal(f"{where}: samples/s of `fit` over those of {name}", ratio(found, FIT, name), 1, "at least")
        if is_gpu and found["mode"] != "plain":
            at_least = 4 if found["batch"] == 1 else 1.5
            yield goal(
                f"{where}: samples/s of `fit` over those of {LORA}", ratio(found, FIT, LORA), at_least, "at least"
            )
            if found["batch"] == 1:
                yield goal(f"{where}: peak, GiB", found["loops"][FIT]["peak_bytes"] / 2**30, 3.5, "at most")
            else:
                share = found["operations"] / fit / rates["bfloat16"]
                yield goal(f"{where}: share of the measured bfloat16 rate", share, 0.35, "at least")


def goal(what: str, seen: float, asked: float, way: str) -> str:
    """Returns one line of the goals."""
    is_reached = seen <= asked if way == "at most" else seen >= asked
    return f"- {what}: {seen:.3f}, goal {way} {asked:g}: {'reached' if is_reached else '**not reached**'}"


def document(arguments: argparse.Namespace, about: dict[str, Any], results: Several[dict[str, Any]]) -> str:
    """Returns machine, tables and goals in Markdown."""
    rates, device = about["matrix_rate"], torch.device(arguments.device)
    command = command_of("benchmarks.step", sys.argv[1:])
    said = ", ".join(f"{name} {rate / 1e12:.2f} TFLOP/s" for name, rate in rates.items())
    threads = f"{about['threads']} threads, " if device.type == "cpu" else ""
    parts = [
        f"`{command}`",
        f"{about['device']}, {threads}torch {about['torch']}; matrix product: {said}. {arguments.shapes} at "
        f"{arguments.size} px, median of {arguments.rounds} rounds of {arguments.steps} steps.",
        *(table(found, rates["float32" if found["precision"] == "32-true" else "bfloat16"]) for found in results),
        "\n".join(goals(results, rates, device.type == "cuda")),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, default="sd15")
    parser.add_argument("--size", type=int, help="side of the pictures in pixels; 512 on a GPU, 128 on a processor")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="pictures of a step")
    parser.add_argument("--modes", nargs="+", choices=MODES, help="all on a GPU, plain and fast on a processor")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="timed steps of every loop in a round; 20 on a GPU, 2 on a processor")
    parser.add_argument("--out", type=Path, help="file for all figures as JSON")
    parser.add_argument("--document", type=Path, help="document whose section step-gpu or step-cpu is replaced")
    arguments = parser.parse_args()
    is_gpu = torch.device(arguments.device).type == "cuda"
    arguments.modes = arguments.modes or (list(MODES) if is_gpu else ["plain", "fast"])
    arguments.size = arguments.size or (512 if is_gpu else 128)
    arguments.steps = arguments.steps or (20 if is_gpu else 2)
    section = "step-gpu" if is_gpu else "step-cpu"
    if arguments.document:
        check_section(arguments.document, section)
    about, results = machine(torch.device(arguments.device)), []
    with tempfile.TemporaryDirectory() as work:
        for samples in arguments.batch:
            for mode in arguments.modes:
                results.append(measure(arguments, mode, samples, Path(work)))
                sys.stderr.write(f"{mode}, batch {samples}: done\n")
    text = document(arguments, about, results)
    print(text)
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n", "utf-8")
    if arguments.document:
        write_section(arguments.document, section, text)
    return 0 if all(math.isfinite(ratio(found, FIT, LORA)) for found in results) else 1


if __name__ == "__main__":
    sys.exit(main())
