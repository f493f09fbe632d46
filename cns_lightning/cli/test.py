"""``test``: draws every evaluation prompt with what a run has learned, and scores the pictures."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from cns_lightning.cli.arguments import add_model_options, at_least, finite_number, path_argument, source_argument
from cns_lightning.errors import EXIT_DONE, Problems, RunStopped, UserError
from cns_lightning.experiments.child_processes import ChildProcesses
from cns_lightning.progress import ProgressDisplay
from cns_lightning.runs.folder import RunFolder, make_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import DiffusionPipeline

    from cns_lightning.evaluation.settings import EvaluationSettings
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.sequences.sequence import Sequence as ConceptSequence

# Not imported from where it is used: help does not wait for torch.
_USUAL_JUDGE = "openai/clip-vit-base-patch32"
_EXPLANATION = """\
Pictures that are there already are not drawn again. docs/evaluation.md says what the figures are.
On several machines or devices: give each a share, as --share 0/8 ... 7/8 --device cuda:N, then run without to score.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning test",
        description="Draws every evaluation prompt with what a run has learned, and scores the pictures.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--run", type=path_argument, required=True, metavar="DIR", help="run folder")
    options.add_argument("--pictures", type=at_least(1), metavar="N", help="number of pictures of every prompt (4)")
    options.add_argument(
        "--matrix-pictures", type=at_least(0), metavar="N", help="after each earlier stage; 0: none (1)"
    )
    options.add_argument(
        "--look-alikes",
        type=at_least(0),
        metavar="N",
        help="pictures of every class in the gallery of identity; 0: none (8)",
    )
    options.add_argument(
        "--curve-pictures", type=at_least(0), metavar="N", help="with each snapshot; 0: none (1 if there are snapshots)"
    )
    options.add_argument(
        "--steps", type=at_least(1), metavar="N", help="steps of the sampler for a picture (as in the samples)"
    )
    options.add_argument(
        "--guidance", type=finite_number, metavar="G", help="how closely prompts are followed (as in the samples)"
    )
    options.add_argument("--batch-size", type=at_least(1), default=8, metavar="N", help="pictures drawn at once (8)")
    options.add_argument(
        "--judge",
        type=source_argument,
        metavar="CLIP",
        help=f"a CLIPModel folder or hub id (the miniature's own, else {_USUAL_JUDGE})",
    )
    options.add_argument(
        "--dino", type=source_argument, metavar="VIT", help="also score by a ViT or DINO folder or hub id (not at all)"
    )
    options.add_argument(
        "--devices", type=at_least(1), default=1, metavar="N", help="processes that draw, one a device (1)"
    )
    options.add_argument("--share", type=_share, metavar="I/N", help="draw the I-th of N shares only, score nothing")
    options.add_argument(
        "--sequence",
        type=source_argument,
        metavar="FILE",
        help="take the prompts from here (those the run was started with)",
    )
    add_model_options(options)
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if the run folder holds nothing that was learned or no prompts, the judge or the device is not
            there, or files cannot be written.
    """
    arguments = parser().parse_args(argv)
    folder = RunFolder.existing(arguments.run)
    # Here, so that --help does not wait for torch.
    from cns_lightning.evaluation.costs import costs_of
    from cns_lightning.evaluation.curves import Curve
    from cns_lightning.evaluation.evaluate import BASE, Evaluation
    from cns_lightning.evaluation.judges import clip_encoder, dino_encoder, judge_of
    from cns_lightning.evaluation.scored_with import scored_with
    from cns_lightning.pipeline import load_pipeline
    from cns_lightning.registry.application import load_base
    from cns_lightning.registry.registry import NeuronRegistry

    registry = NeuronRegistry.load(folder.registry)
    if not registry.tokens:
        raise UserError(f"--run {folder.path}", "nothing is learned yet", "Run fit first")
    sequence, settings = asked(folder, arguments)
    source, device = (
        arguments.base_model or registry.base_model,
        device_of(arguments.device, arguments.devices if arguments.share is None else 1),
    )
    check_covers(sequence, registry.tokens, arguments.sequence or str(folder.config))
    evaluation = Evaluation(folder.evaluation / "images", sequence, registry, settings)
    curve = Curve.of(folder, evaluation, arguments.curve_pictures)
    name, is_share = arguments.judge or judge_of(registry.base_model), arguments.share is not None
    # Before anything is drawn: what cannot be scored should not take hours first.
    judges = None if is_share else (clip_encoder(name, device), dino_encoder(arguments.dino, device))
    references = None if judges is None else evaluation.references(*judges)
    make_folder(folder.evaluation, f"--run {folder.path}")
    display = ProgressDisplay(folder.evaluation / "log.txt")

    def load(stage: int, snapshot: int | None = None) -> DiffusionPipeline:
        if stage != BASE:
            return _that_takes(
                settings.steps,
                load_pipeline(folder.path, registry.tokens[stage], source, device=device, snapshot=snapshot),
            )
        base = load_base(registry, source)
        base.to(device=device)
        return base.pipeline()

    if arguments.devices > 1 and not is_share:
        draw_side_by_side(argv, arguments.devices, device)
    evaluation.draw(load, arguments.share or (0, 1), display.status)
    curve.draw(lambda steps: load(evaluation.last, steps), arguments.share or (0, 1), display.status)
    if judges is None or references is None:
        return EXIT_DONE
    seconds = evaluation.seconds / evaluation.drawn if evaluation.drawn else known_seconds(folder)
    scores = {
        "judge": name, "dino": arguments.dino,
        "scored_with": scored_with(name, judges[0], arguments.dino, judges[1]),
        "pictures": settings.pictures, "matrix_pictures": settings.matrix_pictures, "look_alikes": settings.look_alikes,
        "steps": settings.steps, "guidance": settings.guidance, "seconds_per_picture": seconds,
        "costs": costs_of(folder, registry), **evaluation.scores(*judges, references),
        **curve.scores(judges[0], references[0]),
    }  # fmt: skip
    sys.stdout.write(as_text(scores) + "\n")
    _write(scores, folder, registry, display)
    return EXIT_DONE


def _write(scores: dict[str, Any], folder: RunFolder, registry: NeuronRegistry, display: ProgressDisplay) -> None:
    """Writes the scores, and the page anew: that of before does not show them."""
    from cns_lightning.report.report import what_next, write_report
    from cns_lightning.storage import write_json

    write_json(folder.evaluation / "scores.json", scores)
    display.event(f"wrote {folder.evaluation / 'scores.json'}")
    if folder.config.exists():
        write_report(folder)
        display.event(what_next(folder, registry))


def known_seconds(folder: RunFolder) -> float | None:
    """Returns the seconds a picture took when pictures were drawn last; None where no earlier scores say so."""
    from cns_lightning.storage import read_json

    path = folder.evaluation / "scores.json"
    return read_json(path).get("seconds_per_picture") if path.exists() else None


def asked(folder: RunFolder, arguments: argparse.Namespace) -> tuple[Any, EvaluationSettings]:
    """Returns the run's sequence, and how much is to be drawn.

    Raises:
        UserError: if the run has no configuration, or its sequence no prompts or some in the wrong list.
    """
    from cns_lightning.evaluation.questions import BASE_PROMPTS
    from cns_lightning.evaluation.settings import EvaluationSettings
    from cns_lightning.registry.fused import fusion_text
    from cns_lightning.runs.config import RunConfig
    from cns_lightning.sequences.sequence import PROMPT_KEYS, Sequence, check_place, sequence_path

    kept, path = RunConfig.read(folder), arguments.sequence
    sequence = Sequence.read(sequence_path(path)) if path else kept.read_sequence()
    problems = Problems()
    for key in PROMPT_KEYS:
        for number, prompt in enumerate(getattr(sequence.prompts, key)):
            # The run may be older than the rule.
            where = f"{path or folder.config}: prompts.{key}[{number}]"
            check_place(problems, where, key, prompt, "Correct it in a sequence file and give it: --sequence FILE")
    problems.raise_if_any()
    if not sequence.prompts.all():
        remedy = "Write prompts into a sequence file and give it: --sequence FILE"
        raise UserError(path or str(folder.config), "the sequence has no evaluation prompts", remedy)
    steps, guidance = kept.sampling
    kind, given = kept.method()
    untouched = kept.samples.get("base_prompts") or BASE_PROMPTS
    return sequence, EvaluationSettings(
        pictures=4 if arguments.pictures is None else arguments.pictures,
        matrix_pictures=1 if arguments.matrix_pictures is None else arguments.matrix_pictures,
        untouched=tuple(untouched),
        steps=arguments.steps or steps,
        guidance=guidance if arguments.guidance is None else arguments.guidance,
        batch_size=arguments.batch_size,
        names_class_word=kind.names_class_word,
        fusion=fusion_text(kind(**given)),
        look_alikes=8 if arguments.look_alikes is None else arguments.look_alikes,
        templates=kept.templates,
    )


def _that_takes(steps: int, pipe: DiffusionPipeline) -> DiffusionPipeline:
    """Returns the pipeline, unless its scheduler has fewer steps."""
    from cns_lightning.diffusion.sampling import check_steps

    check_steps(pipe.scheduler, steps, "--steps")
    return pipe


def device_of(name: str | None, count: int) -> str:
    """Returns the device to draw on.

    Args:
        name: device that was asked for; None for the usual one.
        count: processes that draw, each on a GPU of its own where there are any.

    Raises:
        UserError: if the device is not there, or the processes outnumber the GPUs.
    """
    import torch

    from cns_lightning.diffusion.devices import available_device

    device = available_device(name)
    kind, _, number = device.partition(":")
    if count > 1 and number:
        remedy = "Leave the number out; CUDA_VISIBLE_DEVICES says which GPUs there are"
        raise UserError("--device", f"is {device}, and --devices {count} takes the first {count}", remedy)
    if count > 1 and kind == "cuda" and count > torch.cuda.device_count():
        raise UserError("--devices", f"is {count}, and there are {torch.cuda.device_count()} GPUs here", "Take fewer")
    return device


def draw_side_by_side(argv: Sequence[str], count: int, device: str) -> None:
    """Draws the shares in processes of their own, each on its own device of that kind.

    Raises:
        RunStopped: if one of them failed.
    """
    command = [sys.executable, "-m", "cns_lightning", "test", *argv]
    kind, children = device.split(":")[0], ChildProcesses()

    def draw(number: int) -> int | None:
        place = f"{kind}:{number}" if kind == "cuda" else kind
        return children.run([*command, "--share", f"{number}/{count}", "--device", place])

    with children.told_to_stop(), ThreadPoolExecutor(count) as pool:
        codes = list(pool.map(draw, range(count)))
    if any(code != 0 for code in codes):
        raise RunStopped("a process that draws pictures did not finish; the same command draws what is missing")


def check_covers(sequence: ConceptSequence, tokens: Sequence[str], where: str) -> None:
    """Refuses a sequence that lacks a concept that was learned.

    Raises:
        UserError: naming those that are missing.
    """
    missing = set(tokens) - {concept.token for concept in sequence.concepts}
    if missing:
        problem = f"has no {', '.join(sorted(missing))}, which the run has learned"
        raise UserError(where, problem, "Give a sequence file with all concepts")


def as_text(scores: dict[str, Any]) -> str:
    """Returns the figures as a table."""
    from cns_lightning.evaluation.curves import GROUPS
    from cns_lightning.evaluation.score_table import PARTS

    has_dino = any("dino" in row for row in scores["groups"].values())
    lines = [f"{'':<18}{'CLIP-I':>8}{'CLIP-T':>8}" + (f"{'DINO':>8}" if has_dino else "")]
    for part in PARTS:
        for name, row in scores[part].items():
            shown = [row["clip_i"], row["clip_t"], *([row["dino"]] if has_dino else [])]
            label = f"{name} (several)" if part == "kinds_of_several" else name
            lines.append(f"{label:<18}" + "".join(f"{value:>8.3f}" for value in shown))
    whole = {name: row["all_there"] for name, row in scores["groups"].items() if "all_there" in row}
    if whole:
        shown = ", ".join(f"{name} {share:.0%}" for name, share in whole.items())
        lines.append(f"pictures of several concepts that show all animals and objects asked for: {shown}")
    for point in scores.get("curve", ()):
        figures = [
            f"{name} {point[name]['clip_i']:.3f} / {point[name]['clip_t']:.3f}" for name in GROUPS if name in point
        ]
        lines.append(f"after {point['steps']} steps of every stage, CLIP-I / CLIP-T: {', '.join(figures)}")
    for token, row in scores["same_class"].items():
        own, *others = row
        alike = ", ".join(f"{row[each]:.3f} like those of {each}" for each in others)
        lines.append(f"pictures of {token}: {row[own]:.3f} like its own, {alike} (of the same class)")
    for name in ("forgetting_from_best", "forgetting_from_learned"):
        if scores.get(name) is not None:
            lines.append(f"{name.replace('_', ' ')}: {scores[name]:+.3f}")
    if "drift" in scores:
        drift = scores["drift"]
        lines.append(
            f"prompts that name no concept: CLIP-T {drift['clip_t_change']:+.1%}, "
            f"likeness to the base model's pictures {drift['likeness_to_base']:.3f}, CMMD {drift['cmmd']:.3f}"
        )
    lines += _identity_lines(scores)
    return "\n".join(lines)


def _identity_lines(scores: dict[str, Any]) -> list[str]:
    identity = scores.get("identity", {})
    if identity.get("top1") is None:
        return []
    rows = {"identity": identity, **{f"identity of {token}": row for token, row in identity["concepts"].items()}}
    return [
        f"{name}: top-1 {row['top1']:.3f}, mean average precision {row['mean_average_precision']:.3f}"
        for name, row in rows.items()
    ]


def _share(text: str) -> tuple[int, int]:
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts) or int(parts[0]) >= int(parts[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 0/4")
    return int(parts[0]), int(parts[1])
