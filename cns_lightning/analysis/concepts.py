"""What the concepts of a run moved: shares, overlap, in which layers, and how much room is left after them."""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from typing import TYPE_CHECKING, Any

from cns_lightning.neurons.overlap import PAPER, joint_iou, pairwise_iou, updated_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cns_lightning.neurons.mask import NeuronMask
    from cns_lightning.registry.record import ConceptRecord

ALL = "all together"


def shares(masks: Mapping[str, NeuronMask], parameters: Mapping[str, int]) -> list[dict[str, Any]]:
    """Returns a row for every concept and one for all of them together: which share of the model they move.

    Args:
        masks: neurons by token.
        parameters: what else they are counted against, by name, such as ``unet`` and ``pipeline``.

    Source: supplement 9.2.
    """
    union = reduce(lambda one, two: one | two, masks.values())
    rows = []
    for token, mask in {**masks, ALL: union}.items():
        row: dict[str, Any] = {"concept": token, "neurons": mask.count(), "key_value_share": updated_share(mask)}
        rows.append(row | {f"{name}_share": updated_share(mask, count) for name, count in parameters.items()})
    return rows


def overlap(masks: Mapping[str, NeuronMask], classes: Mapping[str, str]) -> dict[str, Any]:
    """Returns how much the neurons of the concepts have in common, and how much as large random ones would.

    Args:
        masks: neurons by token.
        classes: class words by token.

    Returns:
        ``pairs``, a row for every pair: tokens, whether they are of one class, IoU, and the IoU that masks with as many
        random neurons in every row would have; ``mean_pairwise`` of all pairs, ``same_class`` and ``different_class``
        of some, ``chance``; ``joint``, the IoU of all at once. A mean over no pairs is None.

    Source: supplement 9.3.
    """
    tokens, listed = list(masks), list(masks.values())
    table, rows = pairwise_iou(listed), []
    per_row = {token: _row_counts(mask) for token, mask in masks.items()}
    for a, b in combinations(range(len(tokens)), 2):
        one, two = tokens[a], tokens[b]
        rows.append(
            {
                "one": one,
                "other": two,
                "same_class": classes[one] == classes[two],
                "iou": float(table[a, b]),
                "chance": _chance(per_row[one], per_row[two]),
            }
        )
    return {
        "pairs": rows,
        "mean_pairwise": _mean([row["iou"] for row in rows]),
        "same_class": _mean([row["iou"] for row in rows if row["same_class"]]),
        "different_class": _mean([row["iou"] for row in rows if not row["same_class"]]),
        "chance": _mean([row["chance"] for row in rows]),
        "joint": joint_iou(listed),
        "paper": {name: PAPER[name] for name in ("mean_pairwise", "joint")},
    }


def _row_counts(mask: NeuronMask) -> dict[str, tuple[list[int], int]]:
    """Returns the neurons of every row, and the columns, by name of the matrix."""
    return {name: (bools.sum(1).tolist(), bools.shape[1]) for name, bools in mask.bools().items()}


def _chance(one: Mapping[str, tuple[list[int], int]], two: Mapping[str, tuple[list[int], int]]) -> float:
    both, total = 0.0, 0
    for name, (counts, columns) in one.items():
        others = two[name][0]
        both += sum(a * b for a, b in zip(counts, others, strict=True)) / columns
        total += sum(counts) + sum(others)
    return both / (total - both) if total else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def places(masks: Mapping[str, NeuronMask]) -> list[dict[str, Any]]:
    """Returns a row for every concept and matrix: where its neurons are, and which share of the matrix they are."""
    rows = []
    for token, mask in masks.items():
        sizes = {name: shape[0] * shape[1] for name, shape in mask.shapes.items()}
        for name, count in mask.counts().items():
            rows.append(
                {
                    "concept": token,
                    "block": block_of(name),
                    "projection": "keys" if ".to_k." in name else "values",
                    "matrix": name,
                    "neurons": count,
                    "share": count / sizes[name],
                }
            )
    return rows


def block_of(name: str) -> str:
    """Returns the block of the UNet that a parameter belongs to: ``down_blocks.0``, ``mid_block``, ``up_blocks.2``."""
    parts = name.split(".")
    return parts[0] if parts[0] == "mid_block" else ".".join(parts[:2])


def shares_of_blocks(rows: Sequence[Mapping[str, Any]], concept: str) -> dict[tuple[str, str], float]:
    """Returns the share of a concept's neurons that lies in every block, by block and projection; they add up to 1."""
    own = [row for row in rows if row["concept"] == concept]
    total = sum(row["neurons"] for row in own)
    found: dict[tuple[str, str], float] = {}
    for row in own:
        key = row["block"], row["projection"]
        found[key] = found.get(key, 0.0) + (row["neurons"] / total if total else 0.0)
    return found


def capacity(masks: Mapping[str, NeuronMask]) -> list[dict[str, Any]]:
    """Returns a row after every concept: what no concept so far has moved, in all and in the fullest row.

    Args:
        masks: neurons by token, in learning order.

    Returns:
        ``untouched``, the share of key and value weights that no concept has moved; ``fullest_row``, that of the row
        with the least left; ``new``, the share of the concept's own neurons that nobody had moved before.
    """
    rows, so_far = [], None
    for token, mask in masks.items():
        new = mask if so_far is None else mask - so_far
        so_far = mask if so_far is None else so_far | mask
        left = [1 - bools.float().mean(1) for bools in so_far.bools().values()]
        rows.append(
            {
                "concept": token,
                "untouched": 1 - updated_share(so_far),
                "fullest_row": min(float(each.min()) for each in left),
                "new": new.count() / mask.count() if mask.count() else 0.0,
            }
        )
    return rows


def masks_of(records: Sequence[ConceptRecord]) -> dict[str, NeuronMask]:
    """Returns the neurons that concepts move, by token; those that move none are left out."""
    return {record.token: mask for record in records if (mask := record.moved()) is not None}
