"""``analyze``: what the neurons of concepts, or of queries, have in common, where they lie, what is left."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_lightning.cli.arguments import path_argument, source_argument
from cns_lightning.errors import EXIT_DONE, UserError
from cns_lightning.runs.folder import RunFolder, make_folder
from cns_lightning.user_files import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cns_lightning.analysis.analysis import Analysis
    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.neurons.selector import NeuronSelector
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.sequences.templates import PromptTemplates

FOLDER = "analysis"
PARTS = ("similarity", "concepts", "sensitivity")
_EXPLANATION = """\
similarity   queries that differ by one to ten words: do those that share words share neurons?
concepts     share of the model that each concept moves, overlap, layers, room left
sensitivity  the selection with other shares, thresholds, fewer calibration prompts, another order

Writes analysis.json, a CSV for every table, and a PNG and an SVG for every picture.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning analyze",
        description="Analyses the neurons of what a run has learned, or of a base model for queries of your own.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--run", type=path_argument, metavar="DIR", help="run folder; writes to its analysis/")
    options.add_argument(
        "--base-model", type=source_argument, metavar="MODEL",
        help="miniature, a diffusers folder, a single-file checkpoint or a hub id; needs no run; with --run, where the "
        "run's base model is now",
    )  # fmt: skip
    options.add_argument(
        "--queries", type=source_argument, metavar="FILE",
        help="one query per line, a line that starts with # begins a family and names it; default: those that ship",
    )  # fmt: skip
    options.add_argument(
        "--calibration", type=source_argument, metavar="FILE", help="calibration prompts; default: those of the run"
    )
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to analyse; default: all")
    options.add_argument(
        "--device", metavar="NAME", help="where texts are encoded; the graphics card where there is one"
    )
    options.add_argument(
        "--out", type=path_argument, metavar="DIR", help=f"folder; default: {FOLDER}/, of the run where there is one"
    )
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if the run folder holds no registry, files are missing or damaged, or there is no such model or file.
    """
    arguments = parser().parse_args(argv)
    if arguments.run is None and arguments.base_model is None:
        raise UserError("analyze", "has neither --run nor --base-model", "Give a run folder, or a base model")
    folder = None if arguments.run is None else RunFolder.existing(arguments.run)
    out: Path = arguments.out or (Path(FOLDER) if folder is None else folder.analysis)
    make_folder(out, "--out" if arguments.out else "--run")
    found = _analysed(folder, arguments)
    found.write(out)
    lines = [*found.lines, f"written to {out}"]
    if folder is not None:
        lines.append(f"next: {command_line(['report', '--run', str(arguments.run)])}")
    sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_DONE


def _analysed(folder: RunFolder | None, arguments: argparse.Namespace) -> Analysis:
    # Here, so that --help does not wait for torch.
    from cns_lightning.analysis.analysis import Analysis
    from cns_lightning.analysis.concepts import masks_of
    from cns_lightning.analysis.queries import read_families
    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.diffusion.base_source import MINIATURE
    from cns_lightning.diffusion.devices import available_device
    from cns_lightning.registry.application import load_base
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.runs.config import RunConfig
    from cns_lightning.sequences.calibration import read_calibration_prompts
    from cns_lightning.sequences.templates import DEFAULT_TEMPLATES

    registry = None if folder is None else NeuronRegistry.load(folder.registry)
    source = arguments.base_model or (registry.base_model if registry is not None else "")
    shipped = MINIATURE if source == MINIATURE else "stable_diffusion"
    families = read_families(arguments.queries or shipped)
    kept = None if folder is None else RunConfig.find(folder)
    given = {} if kept is None else kept.selection
    prompts = read_calibration_prompts(arguments.calibration or given.get("calibration", shipped))
    base = BaseModel.load(source) if registry is None else load_base(registry, arguments.base_model)
    parameters = counted(base)
    base.to(device=available_device(arguments.device))
    selector = selection(base, given, DEFAULT_TEMPLATES if kept is None else kept.templates)
    found, general, facts = Analysis(), None, {}
    found.facts["base_model"] = {"id": source, "fingerprint": base.fingerprint(), "parameters": parameters}
    if {"similarity", "sensitivity"} & set(arguments.parts):
        general, facts = selector.general(prompts, rare_words(base, registry))
        found.facts["general"] = facts
    if "similarity" in arguments.parts and general is not None:
        found.add_similarity(selector, families, general)
    records = list(registry.records) if registry is not None else []
    masks = masks_of(records)
    if "concepts" in arguments.parts and masks:
        found.add_concepts(masks, {record.token: record.class_word for record in records}, parameters)
    chosen = [record for record in records if (mask := record.mask) is not None and mask.count() < mask.total()]
    if "sensitivity" in arguments.parts and any(len(each.rare_words) <= 1 for each in chosen) and "threshold" in facts:
        # A token that starts from a pair of words has no word to stand in for it.
        alone = [record for record in chosen if len(record.rare_words) <= 1]
        words = registry.rare_words if registry is not None else ()
        found.add_sensitivity(selector, alone, prompts, float(facts["threshold"]), words)
        if len(alone) < len(chosen):
            found.lines.append(
                f"{len(chosen) - len(alone)} concepts that start from several words are left out of this"
            )
    return found


def counted(base: BaseModel) -> dict[str, int]:
    """Returns how many parameters the UNet has, and the whole pipeline."""
    parts: list[Any] = [base.unet, base.vae, *base.text_encoders]
    sizes = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    return {"unet": sizes[0], "pipeline": sum(sizes)}


def selection(base: BaseModel, given: Mapping[str, Any], templates: PromptTemplates) -> NeuronSelector:
    """Returns the selector with the settings of a run.

    Args:
        base: base model.
        given: settings of the selection; the usual ones where there are none.
        templates: prompt templates.
    """
    from cns_lightning.diffusion.cross_attention import key_value_projections
    from cns_lightning.diffusion.projections import read_weights
    from cns_lightning.neurons.selector import NeuronSelector, SelectionRules

    names = {each.name for each in fields(SelectionRules)}
    known = {name: value for name, value in given.items() if name in names and value is not None}
    return NeuronSelector(base, read_weights(key_value_projections(base.unet)), SelectionRules(**known), templates)


def rare_words(base: BaseModel, registry: NeuronRegistry | None) -> tuple[str, ...]:
    """Returns the rare words of a run, else candidates of the base model: what stand-ins are named by."""
    from cns_lightning.diffusion.rare_words import rare_word_candidates

    if registry is not None and registry.rare_words:
        return registry.rare_words
    return tuple(rare_word_candidates(base))
