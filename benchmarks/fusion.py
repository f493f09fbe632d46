"""How far each solver of Mix-of-Show's fusion moves the weights of a run, and how long it takes.

python -m benchmarks.fusion --run DIR [--sheet FILE.png]

The published iterations end early where little is read; the closed form needs a ridge for that. Prints one row per
solver: mean change of the layers of each kind relative to their weights, and seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.projections import read_weights, write_weights
from cns_lightning.diffusion.sampling import generate
from cns_lightning.diffusion.sheets import grid
from cns_lightning.methods.mix_of_show import MixOfShow
from cns_lightning.registry.application import write_tokens
from cns_lightning.registry.registry import NeuronRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

KINDS = {
    "text encoder": "text_encoder.", "keys": "attn2.to_k", "values": "attn2.to_v",
    "self-attention values": "attn1.to_v", "queries": "attn2.to_q", "outputs": "to_out",
}  # fmt: skip
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def changes(now: Mapping[str, Tensor], then: Mapping[str, Tensor]) -> list[float]:
    """Returns the mean relative change of the weights of each kind."""
    found = []
    for part in KINDS.values():
        names = [name for name in now if part in name]
        found.append(sum(float((now[name] - then[name]).norm() / then[name].norm()) for name in names) / len(names))
    return found


def main() -> None:
    """Fuses the concepts of a run with every solver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a finished run of Mix-of-Show")
    parser.add_argument("--sheet", type=Path, help="draw what each solver's model draws")
    given = parser.parse_args()
    registry = NeuronRegistry.load(given.run / "registry")
    records, base = list(registry.records), BaseModel.load(registry.base_model)
    pretrained = read_weights(MixOfShow().projections(base))
    pipe = base.pipeline()
    write_tokens(pipe, registry.base_model, records)
    own = []
    for record in records:
        moved = {name: weight.clone() for name, weight in pretrained.items()}
        record.add_to(moved)
        own.append(changes(moved, pretrained))
    solvers = {f"ridge {ridge:g}": MixOfShow(solver="gram", ridge=ridge) for ridge in RIDGES}
    solvers["iterations 500, 50"] = MixOfShow(solver="iterations")
    prompts = [*(record.prompt for record in records), "a photo of a dog in the snow"]
    sys.stdout.write("| solver | " + " | ".join(KINDS) + " | seconds |\n|---|" + "---:|" * (len(KINDS) + 1) + "\n")
    means = [sum(column) / len(column) for column in zip(*own, strict=True)]
    sys.stdout.write("| the concepts' own deltas | " + " | ".join(f"{value:.3f}" for value in means) + " | |\n")
    rows = []
    for name, method in solvers.items():
        begin = time.monotonic()
        fused = method.fuse(records, base, pretrained)
        seconds = time.monotonic() - begin
        shown = " | ".join(f"{value:.3f}" for value in changes(fused, pretrained))
        sys.stdout.write(f"| {name} | {shown} | {seconds:.1f} |\n")
        sys.stdout.flush()
        if given.sheet:
            write_weights(base, fused)
            rows.append(generate(pipe, prompts, [0], guidance=4.0))
    if given.sheet:
        grid(rows, list(solvers), prompts).save(given.sheet)


if __name__ == "__main__":
    with torch.no_grad():
        main()
