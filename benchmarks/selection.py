"""Times the selection of neurons at Stable Diffusion's shapes against hooks in the UNet, the usual way to such scores.

Ours reads text states alone: no pass of the UNet. The usual way draws every prompt in 50 denoising steps, and hooks on
the key and value projections note what each of them reads. Both are asked for the base neurons of some of the
calibration prompts, and must agree to the last entry; the seconds of the usual way for all of them follow from those
of the few, as every prompt costs the same.

``python -m benchmarks.selection``
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.loops import wait_for
from benchmarks.memory import PeakMemory
from benchmarks.scoring import check_section, command_of, write_section
from benchmarks.shapes import SHAPES, random_base
from benchmarks.step import goal, machine
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import read_weights
from cns_lightning.diffusion.text import text_states
from cns_lightning.neurons.selector import NeuronSelector
from cns_lightning.sequences.calibration import read_calibration_prompts
from cns_lightning.sequences.sequence import Concept

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cns_lightning.diffusion.base_model import BaseModel

CONCEPT = Concept("cat", "cat", "animal", Path())


class InputNorms:
    """Adds up, while hooked, what every projection reads: the squares of every feature over prompts, tokens and steps.

    Args:
        projections: projections by parameter name.
    """

    def __init__(self, projections: dict[str, nn.Linear]) -> None:
        self.squares: dict[str, Tensor] = {}
        self.handles = [each.register_forward_hook(self._hook(name)) for name, each in projections.items()]

    def _hook(self, name: str) -> Any:
        def note(_: nn.Module, given: tuple[Tensor, ...], __: Tensor) -> None:
            # In double precision, so that fifty equal steps add up to fifty times one.
            square = given[0].double().square().sum((0, 1))
            self.squares[name] = self.squares[name] + square if name in self.squares else square

        return note

    def norms(self, steps: int) -> dict[str, Tensor]:
        """Removes the hooks; returns the norms of the features a step, by parameter name."""
        for handle in self.handles:
            handle.remove()
        return {name: (square / steps).sqrt().float() for name, square in self.squares.items()}


@torch.no_grad()
def hooked_base_neurons(base: BaseModel, prompt: str, steps: int, share: float) -> dict[str, Tensor]:
    """Draws a prompt and takes the largest |W| * ||x|| of every row from what the hooks saw, bool by parameter name."""
    projections = key_value_projections(base.unet)
    encoded, hooks = text_states(base, [prompt]), InputNorms(projections)
    scheduler = base.scheduler
    scheduler.set_timesteps(steps, device=base.device)
    latents = torch.randn(1, *base.latent_shape, generator=torch.Generator().manual_seed(0)).to(base.device)
    for timestep in scheduler.timesteps:
        predicted = base.unet(latents, timestep, encoder_hidden_states=encoded.states).sample
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    norms, found = hooks.norms(len(scheduler.timesteps)), {}
    for name, projection in projections.items():
        scores = projection.weight.abs() * norms[name]
        kept = int(share * scores.shape[1])
        places = scores.sort(dim=1, descending=True, stable=True).indices[:, :kept]
        found[name] = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, places, True).cpu()
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Selects both ways; returns seconds, bytes and prompts.

    Raises:
        RuntimeError: if the two ways disagree.
    """
    device = torch.device(arguments.device)
    base = random_base(arguments.shapes, arguments.size, device)
    weights = read_weights(key_value_projections(base.unet))
    prompts = list(read_calibration_prompts("stable_diffusion"))[: arguments.prompts]
    selector = NeuronSelector(base, weights)
    selector.base_neurons(prompts[:1])  # the first use of everything
    memory = PeakMemory(device, sum(each.numel() * each.element_size() for each in weights.values()))
    wait_for(device)
    begin = time.perf_counter()
    general, _ = selector.general(prompts, [])
    mask = selector.concept(CONCEPT, [], general)
    wait_for(device)
    seconds, peak = time.perf_counter() - begin, memory.peak()
    usual = []
    hooked_base_neurons(base, prompts[0], 1, selector.rules.share)  # the first use here, too
    for prompt in prompts[: arguments.hooked]:
        begin = time.perf_counter()
        theirs = hooked_base_neurons(base, prompt, arguments.steps, selector.rules.share)
        wait_for(device)
        usual.append(time.perf_counter() - begin)
        ours = selector.base_neurons([prompt])
        if any(not torch.equal(ours[name], theirs[name]) for name in ours):
            raise RuntimeError(f"hooks and text states give different neurons for {prompt!r}")
    return {
        "prompts": len(prompts), "hooked": arguments.hooked, "seconds": seconds, "peak_bytes": peak,
        # One more for the concept, whose prompts are as many as a batch.
        "usual": statistics.median(usual) * (len(prompts) + 1),
        "weights_bytes": sum(each.numel() * 4 for each in weights.values()), "density": mask.count() / mask.total(),
    }  # fmt: skip


def document(arguments: argparse.Namespace, about: dict[str, Any], found: dict[str, Any]) -> str:
    """Returns the figures and goals in Markdown."""
    is_gpu, ratio = torch.device(arguments.device).type == "cuda", found["usual"] / found["seconds"]
    threads = "" if is_gpu else f"{about['threads']} threads, "
    lines = [
        f"`{command_of('benchmarks.selection', sys.argv[1:])}`",
        "",
        f"{about['device']}, {threads}torch {about['torch']}. {arguments.shapes}, {found['prompts']} calibration "
        f"prompts and one concept: {found['seconds']:.2f} s. Hooks through {arguments.steps} denoising steps at "
        f"{arguments.size} px: {found['usual']:.0f} s, {ratio:.0f} times as long, extrapolated from {found['hooked']} "
        "prompts; both ways select identical base neurons.",
        "",
        goal("seconds of the selection", found["seconds"], 2 if is_gpu else 30, "at most"),
    ]
    if found["peak_bytes"] is not None:
        most = (found["weights_bytes"] + 1e9) / 2**30
        lines.append(goal("peak beside model and text encoder, GiB", found["peak_bytes"] / 2**30, most, "at most"))
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=[name for name in SHAPES if name != "sdxl"], default="sd15")
    parser.add_argument("--size", type=int, help="side of the pictures of the usual way; 512 on a GPU, else 64")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--hooked", type=int, default=2, help="prompts that are also drawn, with hooks")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="file for all figures as JSON")
    parser.add_argument("--document", type=Path, help="document whose section selection-gpu or -cpu is replaced")
    arguments = parser.parse_args()
    is_gpu = torch.device(arguments.device).type == "cuda"
    arguments.size = arguments.size or (512 if is_gpu else 64)
    section = "selection-gpu" if is_gpu else "selection-cpu"
    if arguments.document:
        check_section(arguments.document, section)
    found = measure(arguments)
    about = machine(torch.device(arguments.device))
    text = document(arguments, about, found)
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": about, **found}, indent=1) + "\n", "utf-8")
    if arguments.document:
        write_section(arguments.document, section, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
