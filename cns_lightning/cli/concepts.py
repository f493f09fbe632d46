"""``concepts``: lists what a run has learned, checks its files, and undoes concepts exactly."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from cns_lightning.cli.arguments import path_argument, source_argument
from cns_lightning.errors import EXIT_DONE, UserError
from cns_lightning.runs.folder import RunFolder
from cns_lightning.user_files import composed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cns_lightning.neurons.mask import NeuronMask
    from cns_lightning.registry.registry import NeuronRegistry

_COLUMNS = ("token", "class", "kind", "neurons", "% of k,v", "% of UNet", "mean shift", "on disk", "seen before")
_NUMBERS_START = 3

_EXPLANATION = """\
neurons      key and value weights that the concept moves
% of k,v     their share of all key and value weights; % of UNet: of all weights of the UNet
mean shift   by how much they moved: the mean absolute value of the delta
seen before  percentage of them that an earlier concept had moved already
"""
COMPARED = 20
"""Concepts whose overlap is listed, the first ones: a hundred would take a minute at Stable Diffusion's size."""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning concepts",
        description="Lists the concepts that a run has learned, checks their files, or takes concepts out exactly.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--run", type=path_argument, required=True, metavar="DIR", help="run folder")
    options.add_argument("--json", action="store_true", help="print JSON instead of text")
    action = options.add_mutually_exclusive_group()
    action.add_argument(
        "--remove", type=composed, metavar="TOKEN", help="take one concept out, keep those learned after it"
    )
    action.add_argument(
        "--rollback", type=composed, metavar="TOKEN", help="go back to the state right after TOKEN was learned"
    )
    action.add_argument(
        "--verify", action="store_true", help="check every file, and every weight against the base model"
    )
    options.add_argument(
        "--base-model",
        type=source_argument,
        metavar="SOURCE",
        help="for --verify: where the run's base model is now, if it was moved",
    )
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if the run folder holds no registry, a token is unknown, or files are missing or damaged.
    """
    arguments = parser().parse_args(argv)
    if arguments.base_model and not arguments.verify:
        raise UserError("--base-model", "is read by --verify alone", "Leave it out; the rest needs no base model")
    folder = RunFolder.existing(arguments.run)
    is_undo = bool(arguments.remove or arguments.rollback)
    with folder.held() if is_undo else nullcontext():
        facts, text = _done(folder, arguments)
    sys.stdout.write((json.dumps(facts, indent=2, ensure_ascii=False) if arguments.json else text) + "\n")
    return EXIT_DONE


def _done(folder: RunFolder, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    # Here, so that --help does not wait for torch.
    from cns_lightning.registry.registry import NeuronRegistry

    is_undo = bool(arguments.remove or arguments.rollback)
    # An undo is also the way out of a missing file; --verify names every fault itself.
    registry = NeuronRegistry.load(folder.registry, check_files=not (is_undo or arguments.verify))
    if is_undo:
        return _undo(folder, registry, arguments)
    if arguments.verify:
        return _verify(folder, registry, arguments.base_model)
    rows = listing(registry)
    overlap = overlap_figures(registry)
    return _facts(registry, rows) | {"overlap": overlap}, _as_text(registry, rows, overlap)


def _undo(folder: RunFolder, registry: NeuronRegistry, arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from cns_lightning.maintenance import undo

    if arguments.remove:
        done = undo.remove(folder, registry, arguments.remove)
        lines = [f"{arguments.remove} is taken out; the model is now as if built from the other concepts alone."]
        if done.later:
            lines.append(
                f"Learned on top of it, and kept as they are: {', '.join(done.later)}. "
                "Their values were found with it in place, so their pictures may change a little."
            )
        lines.append("Take it out of the sequence file, too, before you run fit on this folder again.")
    else:
        done = undo.rollback(folder, registry, arguments.rollback)
        taken = f"Taken out: {', '.join(done.removed)}." if done.removed else "Nothing was learned after it."
        lines = [f"The model is as it was right after {arguments.rollback}. {taken} fit goes on from here."]
    if done.restarted:
        lines.append(f"{done.restarted}, which was being learned, starts anew.")
    facts = {
        "removed": done.removed, "learned_on_top": done.later, "restarted": done.restarted, "tokens": registry.tokens,
    }  # fmt: skip
    return facts, "\n".join(lines)


def _verify(folder: RunFolder, registry: NeuronRegistry, base_model: str | None) -> tuple[dict[str, Any], str]:
    from cns_lightning.maintenance.verification import verify_run

    found = verify_run(folder, registry, base_model)
    text = (
        f"{found.files} files read, every checksum is right. {registry.source.said} is the model that was learned on.\n"
        f"Of {found.weights:,} key and value weights {found.moved:,} are moved by concepts. The others, and every "
        "other weight of the model, are the base model's, bit for bit."
    )
    return {"files": found.files, "key_value_weights": found.weights, "moved": found.moved}, text


def listing(registry: NeuronRegistry) -> list[dict[str, Any]]:
    """Returns a row of facts for every concept, in learning order; shares are fractions, None where not known."""
    from cns_lightning.neurons.overlap import revisited_share, updated_share

    rows = []
    earlier = None
    for entry, record in zip(registry.entries, registry.records, strict=True):
        mask = record.moved()
        shares: dict[str, float | None] = {"key_value_share": None, "unet_share": None, "seen_before_share": None}
        if mask is not None:
            shares["key_value_share"] = updated_share(mask)
            if registry.unet_parameters:
                shares["unet_share"] = updated_share(mask, registry.unet_parameters)
            shares["seen_before_share"] = revisited_share(mask, earlier) if earlier is not None else None
            earlier = mask if earlier is None else earlier | mask
        rows.append(
            {
                "token": entry.token,
                "class_word": entry.class_word,
                "kind": entry.kind,
                "neurons": entry.counts["neurons"],
                "mean_shift": float(record.values.float().abs().mean()) if len(record.values) else None,
                "rare_words": list(record.rare_words),
                "kept_step": record.kept_step,
                "bytes": entry.bytes,
                **shares,
            }
        )
    return rows


def overlap_figures(registry: NeuronRegistry) -> dict[str, float]:
    """Returns how much the neurons of concepts have in common: mean IoU of pairs, of pairs of one class, IoU of all.

    Of the first `COMPARED` concepts that move some of the weights. Figures that do not exist, for fewer than two
    concepts or no two of one class, are left out.
    """
    from cns_lightning.neurons.overlap import joint_iou, pairwise_iou

    selected = [record for record in registry.records if record.mask is not None and not _is_whole(record.mask)]
    masks = [record.mask for record in selected[:COMPARED] if record.mask is not None]
    if len(masks) < 2:
        return {}
    table, classes = pairwise_iou(masks), [record.class_word for record in selected]
    pairs = [(row, column) for row in range(len(masks)) for column in range(row)]
    every = [float(table[pair]) for pair in pairs]
    alike = [float(table[pair]) for pair in pairs if classes[pair[0]] == classes[pair[1]]]
    within = {"mean_within_class": sum(alike) / len(alike)} if alike else {}
    found = {"concepts": len(masks), "mean_pairwise": sum(every) / len(every), **within}
    return {**found, "joint": joint_iou(masks)}


def _is_whole(mask: NeuronMask) -> bool:
    return mask.count() == mask.total()


def _facts(registry: NeuronRegistry, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "base_model": registry.base_model,
        "base_fingerprint": registry.base_fingerprint,
        **registry.source.plain(),
        "general": registry.general_metadata(),
        "concepts": rows,
    }


def _as_text(registry: NeuronRegistry, rows: list[dict[str, Any]], overlap: dict[str, float]) -> str:
    if not rows:
        return "No concept has been learned yet."
    cells = [
        (
            row["token"],
            row["class_word"],
            row["kind"],
            f"{row['neurons']:,}",
            _percent(row["key_value_share"]),
            _percent(row["unet_share"]),
            "-" if row["mean_shift"] is None else f"{row['mean_shift']:.4f}",
            _size(row["bytes"]),
            _percent(row["seen_before_share"]),
        )
        for row in rows
    ]
    total = sum(row["bytes"] for row in rows)
    names = "1 concept" if len(rows) == 1 else f"{len(rows)} concepts"
    summary = f"{names} on {registry.source.said}, {_size(total)} on disk"
    chosen = ", ".join(f"{row['token']} {row['kept_step']}" for row in rows if row["kept_step"] is not None)
    kept = [f"kept after step: {chosen}"] if chosen else []
    return "\n".join([*_table([_COLUMNS, *cells]), "", summary, *kept, *_beside_the_paper(rows, overlap)])


def _beside_the_paper(rows: list[dict[str, Any]], overlap: dict[str, float]) -> list[str]:
    shares = [row["key_value_share"] for row in rows if row["key_value_share"] not in (None, 1)]
    if not shares:  # no or all weights move: nothing was selected
        return []
    from cns_lightning.neurons.overlap import PAPER

    mean = sum(shares) / len(shares)
    lines = [f"share of the key and value weights: {mean:.1%} on average (paper: about {PAPER['key_value_share']:.0%})"]
    if overlap:
        within = overlap.get("mean_within_class")
        alike = "" if within is None else f"; two of one class {within:.2f}"
        lines += [
            f"overlap (IoU) of two concepts: {overlap['mean_pairwise']:.2f} on average (paper: "
            f"{PAPER['mean_pairwise']}){alike}",
            f"overlap (IoU) of {overlap['concepts']:.0f} together: {overlap['joint']:.3f} "
            f"(paper, of seven: {PAPER['joint']})",
        ]
    return lines


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        words = [cell.ljust(width) for cell, width in zip(row[:_NUMBERS_START], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(row[_NUMBERS_START:], widths[_NUMBERS_START:], strict=True)]
        lines.append("  ".join([*words, *numbers]).rstrip())
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _size(count: int) -> str:
    if count < 1_000_000:
        return f"{count / 1000:.1f} kB"
    return f"{count / 1_000_000:.1f} MB"
