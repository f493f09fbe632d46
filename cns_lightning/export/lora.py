"""``lora``: the delta of every layer, cut to a low rank. Small and read everywhere, and not exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from cns_lightning.export.package import Encoded, PackageOptions, Say, check_package, network_key, write_package
from cns_lightning.export.tokens import in_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from cns_lightning.export.learned import Learned

FORMAT = "lora"
KEPT = 0.95
"""Share of the energy for which the rank is said."""
HEADINGS = ("layer", "left out", f"rank for {KEPT:.0%}", "full rank")


@dataclass(frozen=True)
class LowRank:
    """The best approximation of a matrix by one of lower rank.

    Attributes:
        up: shape (out, rank).
        down: shape (rank, in); their product is the approximation.
        squares: squares of all singular values of the matrix, descending; their sum is its energy.
        rank: number of singular values that are kept.
    """

    up: Tensor
    down: Tensor
    squares: Tensor
    rank: int

    @property
    def left_out(self) -> float:
        """Returns the share of the energy that the approximation leaves out."""
        total = float(self.squares.sum())
        return float(self.squares[self.rank :].sum()) / total if total else 0.0

    def rank_for(self, share: float) -> int:
        """Returns the lowest rank that keeps a share of the energy; 0 for a matrix of zeros."""
        total = self.squares.sum()
        if not total:
            return 0
        return int((self.squares.cumsum(0) < share * total).sum()) + 1


def low_rank(matrix: Tensor, rank: int) -> LowRank:
    """Cuts a matrix to a rank, by its singular values; the factors share them evenly.

    Args:
        matrix: shape (out, in), float32.
        rank: largest rank; no more than the matrix has.
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    rank = min(rank, len(values))
    roots = values[:rank].sqrt()
    return LowRank(left[:, :rank] * roots, roots[:, None] * right[:rank], values.double() ** 2, rank)


def export_lora(learned: Learned, options: PackageOptions, rank: int, base_model: str | None, say: Say) -> list[str]:
    """Writes LoRA files in the spelling of sd-scripts, which diffusers reads too, and one file per token.

    Args:
        learned: the exported concepts.
        options: what the user chose.
        rank: rank of every layer.
        base_model: where the base model is now; None where the run had it.
        say: tells how things stand.

    Returns:
        Lines for the user: the energy left out of every layer, the rank that keeps most of it, the next step last.

    Raises:
        UserError: if the concepts cannot be exported so, files are damaged or in the way, or cannot be written.
    """
    learned.check_moves_weights("--format lora")
    check_package(learned, options)
    return write_package(learned.load(base_model), FORMAT, options, partial(encode_low_rank, rank=rank, say=say), say)


def encode_low_rank(delta: Mapping[str, Tensor], dtype: torch.dtype, rank: int, say: Say | None = None) -> Encoded:
    """Returns a delta as low-rank factors.

    Args:
        delta: differences by parameter name, float32, shape (out, in).
        dtype: precision of the file.
        rank: rank of every layer.
        say: tells how things stand.
    """
    tensors: dict[str, Tensor] = {}
    found: dict[str, LowRank] = {}
    for number, (name, difference) in enumerate(delta.items()):
        if say is not None:
            say(f"layer {number + 1} of {len(delta)}")
        found[name] = low_rank(difference, rank)
        key = network_key(name)
        tensors[f"{key}.lora_up.weight"] = found[name].up.to(dtype)
        tensors[f"{key}.lora_down.weight"] = found[name].down.to(dtype)
        # Programs scale by alpha / rank.
        tensors[f"{key}.alpha"] = torch.tensor(float(found[name].rank))
    network = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
    }
    rows = energy_rows(found)
    said = summary(found)
    notes = "\n".join([f"{said}.", "", "```", *in_columns(rows), "```"])
    return Encoded(tensors, network, [*(f"  {line}" for line in [*in_columns(rows), said])], {"Energy": notes})


def energy_rows(found: Mapping[str, LowRank]) -> list[Sequence[str]]:
    """Returns a heading and one row per layer: name, share of the energy left out, rank that keeps most, full rank."""
    rows: list[Sequence[str]] = [HEADINGS]
    for name, each in found.items():
        rows.append(
            (name.removesuffix(".weight"), f"{each.left_out:.1%}", str(each.rank_for(KEPT)), str(len(each.squares)))
        )
    return rows


def summary(found: Mapping[str, LowRank]) -> str:
    """Returns one sentence on what the rank leaves out of all layers, and which rank would keep most in each."""
    total = sum(float(each.squares.sum()) for each in found.values())
    lost = sum(float(each.squares[each.rank :].sum()) for each in found.values())
    rank = max(each.rank for each in found.values())
    needed = max(each.rank_for(KEPT) for each in found.values())
    share = lost / total if total else 0
    return f"rank {rank} leaves out {share:.1%} of the energy; rank {needed} keeps {KEPT:.0%} of every layer"
