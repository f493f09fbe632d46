"""Measures what a hundred concepts of Stable Diffusion 1.5's size cost on disk, and to open, replay and save.

Weights and text states are random, the neurons are those that the real selection takes of them: what compresses a mask
is the structure of |W_ij| * ||X_j||. How uneven the features of the text states are is an assumption (``--spread``, the
deviation of the logarithm of their scales); even ones are 0, and the miniature's own masks stand beside.

``python -m benchmarks.storage --work runs/storage``
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import statistics
import sys
import time
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.scoring import check_section, command_of, write_section
from benchmarks.shapes import SHAPES
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import read_weights
from cns_lightning.neurons.importance import importance_scores, text_feature_norms
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.mask_codec import pack_mask, unpack_mask
from cns_lightning.neurons.selection import (
    automatic_threshold,
    base_neurons,
    concept_neurons,
    general_neurons,
    vote_counts,
)
from cns_lightning.neurons.selector import NeuronSelector
from cns_lightning.registry import files
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.sequences.calibration import read_calibration_prompts
from cns_lightning.sequences.sequence import Concept
from cns_lightning.storage import sha256_of, tensor_bytes, tensors_from_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Callable

DENSITY = 0.058
TOKENS, PROMPTS, GROUP = 77, 16, 10
PROMPT_SPREAD = 0.35
"""Deviation of the logarithm of a feature's scale from prompt to prompt."""


def random_weights() -> dict[str, Tensor]:
    """Draws the key and value weights of Stable Diffusion 1.5's UNet, by parameter name."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, **SHAPES["sd15"][1])
    drawn = torch.Generator().manual_seed(0)
    return {
        name: 0.03 * torch.randn(each.weight.shape, generator=drawn)
        for name, each in key_value_projections(unet).items()
    }


class Selection:
    """Selects neurons of random weights for random text states.

    Attributes:
        general: general neurons by parameter name.
        share: share of each row at which a concept has the wanted density.

    Args:
        weights: weights by parameter name.
        spread: deviation of the logarithm of the features' scales.
    """

    def __init__(self, weights: dict[str, Tensor], spread: float) -> None:
        self.weights, self.drawn = weights, torch.Generator().manual_seed(1)
        self.width = next(iter(weights.values())).shape[1]
        self.scales = torch.exp(spread * torch.randn(self.width, generator=self.drawn))
        votes = torch.stack([self._norms() for _ in range(PROMPTS)])
        counts, norms = vote_counts(weights, votes), self._norms()
        reference = self._base(norms, 0.30)
        threshold, _ = automatic_threshold(counts, [reference], PROMPTS, (DENSITY, DENSITY))
        self.general = general_neurons(counts, PROMPTS, threshold)
        low, high = 0.0, 1.0
        for _ in range(7):
            self.share = (low + high) / 2
            too_many = self._mask(norms).count() > DENSITY * sum(each.numel() for each in weights.values())
            low, high = (low, self.share) if too_many else (self.share, high)

    def _norms(self) -> Tensor:
        of_prompt = torch.exp(PROMPT_SPREAD * torch.randn(self.width, generator=self.drawn))
        states = torch.randn(1, TOKENS, self.width, generator=self.drawn) * self.scales * of_prompt
        return text_feature_norms(states)

    def _base(self, norms: Tensor, share: float) -> dict[str, Tensor]:
        return {name: base_neurons(importance_scores(each, norms), share) for name, each in self.weights.items()}

    def _mask(self, norms: Tensor) -> NeuronMask:
        base = self._base(norms, self.share)
        return NeuronMask.from_bools({name: concept_neurons(base[name], self.general[name]) for name in base})

    def concept(self) -> NeuronMask:
        """Returns the neurons of another concept."""
        return self._mask(self._norms())


def record_of(number: int, mask: NeuronMask, width: int = 768) -> ConceptRecord:
    """Makes a record of random values on a mask."""
    token, drawn = f"<c{number:03d}>", torch.Generator().manual_seed(number)
    values = (1e-3 * torch.randn(mask.count(), generator=drawn)).half()
    embeddings = [torch.randn(1, width, generator=drawn)]
    return ConceptRecord(token, "cat", "animal", f"a photo of a {token} cat", mask, values, embeddings)


def version_2(record: ConceptRecord, data: bytes) -> bytes:
    """Returns a concept's file as format version 2 had it: a bit for every entry."""
    tensors, facts = tensors_from_bytes(data, "")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("mask/")}
    assert record.mask is not None
    bits = {f"mask/{name}": tensor for name, tensor in record.mask.to_tensors().items()}
    return tensor_bytes(
        kept | bits, {name: text for name, text in facts.items() if name != "mask"} | {"format_version": "2"}
    )


def entropy_bytes(mask: NeuronMask) -> float:
    """Returns the entropy of a mask whose columns have each its own density, the same in every matrix, in bytes."""
    total = 0.0
    for width in {shape[1] for shape in mask.shapes.values()}:
        rows = np.concatenate(
            [mask.flat(name).reshape(-1, width) for name in mask.names if mask.shapes[name][1] == width]
        )
        share = rows.mean(0).clip(1e-12, 1 - 1e-12)
        total -= len(rows) * float((share * np.log2(share) + (1 - share) * np.log2(1 - share)).sum()) / 8
    return total


def best_of(act: Callable[[], Any], repeats: int = 3) -> tuple[Any, float]:
    """Returns what a function gives, and the least seconds that it took."""
    seconds, given = [], None
    for _ in range(repeats):
        begin = time.perf_counter()
        given = act()
        seconds.append(time.perf_counter() - begin)
    return given, min(seconds)


def forms_of(mask: NeuronMask) -> dict[str, dict[str, float]]:
    """Returns bytes and seconds of unpacking for every way to store one mask, by name."""
    tensors = mask.to_tensors()
    bits = b"".join(tensors[f"{name}.bits"].numpy().tobytes() for name in mask.names)
    (packed, about), packing = best_of(lambda: pack_mask(mask))
    back, unpacking = best_of(lambda: unpack_mask(packed, about))
    if back != mask:
        raise RuntimeError("the packed mask came back changed")
    deflated, solid = zlib.compress(bits, 9), lzma.compress(bits)
    own = packed["packed"].numel() + 4 * packed["columns"].numel()
    return {
        "one bit per entry (format 2)": {"bytes": len(bits), "seconds": 0.0},
        "the bits, zlib 9": {"bytes": len(deflated), "seconds": best_of(lambda: zlib.decompress(deflated))[1]},
        "the bits, lzma": {"bytes": len(solid), "seconds": best_of(lambda: lzma.decompress(solid))[1]},
        "gaps along columns (format 3)": {"bytes": own, "seconds": unpacking, "packing": packing},
        "entropy of the columns": {"bytes": entropy_bytes(mask), "seconds": 0.0},
    }


def miniature_mask() -> NeuronMask:
    """Selects the neurons of a concept of the miniature, as a run does."""
    base = BaseModel.load("miniature")
    selector = NeuronSelector(base, read_weights(key_value_projections(base.unet)))
    general, _ = selector.general(read_calibration_prompts("miniature"), [])
    return selector.concept(Concept("cat", "cat", "animal", Path()), [], general)


def save_all(folder: Path, make: Callable[[int], ConceptRecord], count: int) -> tuple[NeuronRegistry, list[float]]:
    """Saves concepts into a new registry; returns it, and the seconds of every save."""
    shutil.rmtree(folder, ignore_errors=True)
    registry, seconds = NeuronRegistry.create(folder, "random", "f" * 64), []
    for number in range(count):
        record = make(number)
        begin = time.perf_counter()
        registry.add(record)
        seconds.append(time.perf_counter() - begin)
    return registry, seconds


def as_version_2(registry: NeuronRegistry, folder: Path) -> int:
    """Writes a registry in format version 2; returns the bytes of its files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    assert registry.folder is not None
    entries = []
    for entry, record in zip(registry.entries, registry.records, strict=True):
        path = folder / entry.file
        path.write_bytes(version_2(record, (registry.folder / entry.file).read_bytes()))
        entries.append(replace(entry, sha256=sha256_of(path), bytes=path.stat().st_size))
    about = {"id": "random", "fingerprint": "f" * 64, "unet_parameters": None}
    concepts = [asdict(entry) for entry in entries]
    index = {"format_version": 2, "base_model": about, "general": None, "concepts": concepts}
    write_json(folder / files.INDEX, index)
    return sum(entry.bytes for entry in entries)


def replayed(folder: Path, base: dict[str, Tensor]) -> tuple[dict[str, Tensor], float, float]:
    """Opens a registry, reads and checks every file, and adds everything up; returns weights and seconds of both."""
    begin = time.perf_counter()
    registry = NeuronRegistry.load(folder)
    opened = time.perf_counter() - begin
    weights = registry.weights(base=base)
    for token in registry.tokens:
        registry.embedding(token)
    return weights, opened, time.perf_counter() - begin


def growth(seconds: list[float]) -> dict[str, float]:
    """Returns the medians of the first and last saves, without the very first, and their ratio."""
    first, last = statistics.median(seconds[1 : GROUP + 1]), statistics.median(seconds[-GROUP:])
    return {"first": first, "last": last, "ratio": last / first}


def measure(count: int, work: Path, spread: float) -> dict[str, Any]:
    """Returns all figures."""
    base = random_weights()
    selection = Selection(base, spread)
    masks = {
        f"uneven features ({spread})": selection.concept(),
        "even features": Selection(base, 0.0).concept(),
        "the miniature's, a real model": miniature_mask(),
    }
    registry, large = save_all(work / "large", lambda number: record_of(number, selection.concept()), count)
    small_mask = NeuronMask.from_bools({"w": torch.ones(8, 8, dtype=torch.bool)})
    _, small = save_all(work / "small", lambda number: record_of(number, small_mask, 64), count)
    old = as_version_2(registry, work / "version_2")
    ours, opened, seconds = replayed(work / "large", base)
    theirs, _, before = replayed(work / "version_2", base)
    if any(not torch.equal(ours[name], theirs[name]) for name in theirs):
        raise RuntimeError("the formats give different weights")
    sizes = [entry.bytes for entry in registry.entries]
    neurons = [entry.counts["neurons"] / entry.counts["key_value_weights"] for entry in registry.entries]
    return {
        "masks": {
            name: {"density": mask.count() / mask.total(), "forms": forms_of(mask)} for name, mask in masks.items()
        },
        "concepts": count, "density": statistics.fmean(neurons), "bytes": statistics.fmean(sizes),
        "largest": max(sizes), "version_2_bytes": old / count, "opened": opened, "replayed": seconds,
        "version_2_replayed": before, "saving": growth(large), "saving_small": growth(small),
    }  # fmt: skip


def document(found: dict[str, Any]) -> str:
    """Returns the figures in Markdown."""
    lines = [f"`{command_of('benchmarks.storage', sys.argv[1:])}` ({torch.get_num_threads()} threads)", ""]
    for name, each in found["masks"].items():
        raw = each["forms"]["one bit per entry (format 2)"]["bytes"]
        lines += [f"| mask of {name}, {100 * each['density']:.1f} % | kB | of the bits | ms to unpack |",
                  "|---|---:|---:|---:|"]  # fmt: skip
        for form, cost in each["forms"].items():
            took = f"{1e3 * cost['seconds']:.1f}" if cost["seconds"] else "-"
            lines.append(f"| {form} | {cost['bytes'] / 1e3:.0f} | {cost['bytes'] / raw:.3f} | {took} |")
        lines.append("")
    saving, small = found["saving"], found["saving_small"]
    rows = [
        ("a concept, MB", found["bytes"] / 1e6, found["version_2_bytes"] / 1e6, "3.0"),
        (f"{found['concepts']} concepts opened, read, checked and added up, s", found["replayed"],
         found["version_2_replayed"], "5"),
    ]  # fmt: skip
    lines += ["| | now | format 2 | ratio | goal at most |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {name} | {now:.3f} | {then:.3f} | {now / then:.3f} | {most} |" for name, now, then, most in rows]
    lines += [
        "", f"The concepts have {100 * found['density']:.2f} % of the key and value weights; the largest file has "
        f"{found['largest'] / 1e6:.3f} MB; `registry.json` alone opens in {1e3 * found['opened']:.1f} ms.", "",
        f"| saving, ms | 2 to {GROUP + 1} | last {GROUP} of {found['concepts']} | ratio |", "|---|---:|---:|---:|",
        f"| concepts of this size | {1e3 * saving['first']:.1f} | {1e3 * saving['last']:.1f} | {saving['ratio']:.3f} |",
        f"| tiny ones: files and index alone | {1e3 * small['first']:.2f} | {1e3 * small['last']:.2f} | "
        f"{small['ratio']:.3f} |",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--spread", type=float, default=0.5)
    parser.add_argument("--work", type=Path, default=Path("runs/storage"))
    parser.add_argument("--out", type=Path, help="file for all figures as JSON")
    parser.add_argument("--document", type=Path, help="document whose section storage is replaced")
    arguments = parser.parse_args()
    if arguments.document:
        check_section(arguments.document, "storage")
    found = measure(arguments.concepts, arguments.work.absolute(), arguments.spread)
    text = document(found)
    print(text, end="")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if arguments.document:
        write_section(arguments.document, "storage", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
