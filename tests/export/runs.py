"""Run folders of made-up concepts, and a reader of exported weight files that knows only the rules of their keys."""

import copy
import json
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.base_source import BaseSource
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.sheets import grid, sheet_bytes
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import write_atomically

TOKENS = ("<new1>", "<new2>")


def concept(base: BaseModel, token: str, seed: int, share: float = 0.1, vectors: int = 1) -> ConceptRecord:
    """Makes up a concept that moves a share of the key and value weights; none of them for a share of 0."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: each.weight.shape for name, each in key_value_projections(base.unet).items()}
    bools = {name: torch.rand(shape, generator=generator) < share for name, shape in shapes.items()}
    mask = NeuronMask.from_bools(bools) if share else None
    return ConceptRecord(
        token=token,
        class_word="cat",
        kind="animal",
        prompt=f"photo of a {token} cat",
        mask=mask,
        values=(torch.randn(mask.count() if mask else 0, generator=generator) / 10).half(),
        embeddings=[torch.randn(vectors, each.config.hidden_size, generator=generator) for each in base.text_encoders],
    )


def write_run(folder: Path, source: Path | BaseSource, records: int = 2, share: float = 0.1, vectors: int = 1) -> Path:
    """Writes a run folder of made-up concepts, with the sheets of pictures that a run draws."""
    base = BaseModel.load(source if isinstance(source, BaseSource) else str(source))
    weights = {name: each.weight.detach() for name, each in key_value_projections(base.unet).items()}
    registry = NeuronRegistry.create(folder / "registry", base.origin, base.fingerprint(), weights)
    rows: dict[str, list[Image.Image]] = {}
    for number in range(records):
        token = f"<new{number + 1}>"
        registry.add(concept(base, token, number, share, vectors))
        rows[f"{token} cat"] = [Image.new("RGB", (32, 32), (50 * number, 100, 200 - 30 * seed)) for seed in range(2)]
        sheet = grid(list(rows.values()), list(rows), ["seed 0", "seed 1"])
        write_atomically(RunFolder(folder).sample_sheet(number), sheet_bytes(sheet))
    return folder


def export(run: Path, what: str, out: Path, *more: str) -> None:
    """Exports a run through the command line."""
    assert main(["export", "--run", str(run), "--format", what, "--out", str(out), *more]) == 0


def header(path: Path) -> dict[str, str]:
    """Returns the metadata of a safetensors file as they stand in it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0, "tensors are aligned"
    return json.loads(data[8 : 8 + length])["__metadata__"]


def read_into(unet: nn.Module, tensors: dict[str, Tensor], strength: float = 1.0) -> set[str]:
    """Adds a weight file to a UNet as the programs do, and returns the names of the parameters it placed.

    For a layer ``a.b`` there is ``lora_unet_a_b.diff``, or ``.lora_up.weight``, ``.lora_down.weight`` and ``.alpha``.
    """
    placed: set[str] = set()
    left = set(tensors)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            if f"{key}.diff" in tensors:
                weight += strength * tensors[f"{key}.diff"].to(weight)
                left.remove(f"{key}.diff")
            elif f"{key}.lora_up.weight" in tensors:
                up, down, alpha = (tensors[f"{key}.{part}"].float() for part in PARTS)
                weight += strength * (up @ down) * alpha / len(down)
                left -= {f"{key}.{part}" for part in PARTS}
            else:
                continue
            placed.add(name)
    assert not left, f"no layer has these: {left}"
    return placed


PARTS = ("lora_up.weight", "lora_down.weight", "alpha")


def weights_of(unet: nn.Module) -> dict[str, Tensor]:
    """Returns copies of all weights of a UNet."""
    return {name: weight.detach().clone() for name, weight in unet.named_parameters()}


def pretrained_unet(run: Path) -> nn.Module:
    """Returns a UNet of the run's base model; the caller may change it."""
    return copy.deepcopy(_unet(NeuronRegistry.load(run / "registry").base_model))


@cache
def _unet(source: str) -> nn.Module:
    return BaseModel.load(source).unet


@cache
def trained_weights(run: Path, upto: str | None = None) -> dict[str, Tensor]:
    """Returns all UNet weights of the run's model, read once; callers leave them as they are."""
    return weights_of(load_pipeline(run, upto).unet)
