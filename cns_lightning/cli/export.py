"""``export``: what a run has learned, in the file formats of other programs."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from cns_lightning.cli.arguments import at_least, finite_number, path_argument, source_argument
from cns_lightning.errors import EXIT_DONE, Problems, UserError
from cns_lightning.progress import ProgressDisplay
from cns_lightning.runs.folder import RunFolder
from cns_lightning.user_files import composed

if TYPE_CHECKING:
    from pathlib import Path

    from cns_lightning.export.learned import Learned
    from cns_lightning.export.package import Say

OPTIONS = {
    "diffusers": ("dtype",),
    "webui": ("dtype", "per_concept", "bundle"),
    "shira": ("dtype",),
    "lora": ("dtype", "per_concept", "bundle", "rank"),
    "comfyui": ("per_concept", "prompt", "region", "negative_prompt", "seed", "steps", "guidance", "n"),
}
"""Options that not every format has, by format."""
EXACT = ("diffusers", "shira")
"""Formats that keep every bit unless they are told otherwise."""

_EXPLANATION = """\
diffusers  a folder that stock diffusers opens, and each token for load_textual_inversion
webui      weights and tokens for ComfyUI, A1111, Forge and InvokeAI; --per-concept gives each concept a strength
shira      the moved weights alone, an adapter of peft
lora       the same programs as webui; small, and not exact: it says what --rank leaves out
comfyui    a workflow (.json) that draws --prompt and --region with the files of webui
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning export",
        description="Writes what a run has learned for other programs.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--run", type=path_argument, required=True, metavar="DIR", help="run folder")
    options.add_argument("--format", choices=tuple(OPTIONS), required=True, help="for which programs, see below")
    options.add_argument(
        "--out", type=path_argument, required=True, metavar="PATH", help="folder of the export; comfyui: a .json file"
    )
    options.add_argument("--upto", type=composed, metavar="TOKEN", help="the model as it was right after this concept")
    options.add_argument("--name", metavar="NAME", help="name of the weight files (that of the run folder)")
    options.add_argument("--license", default="", metavar="NAME", help="licence of the files, for their card")
    options.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        help="precision of the weights (float16; diffusers and shira: float32)",
    )
    options.add_argument(
        "--per-concept", action="store_true", default=None, help="a weight file, and so a strength, a concept"
    )
    options.add_argument(
        "--bundle", action="store_true", default=None, help="the tokens within the weight files as well, for A1111"
    )
    options.add_argument("--rank", type=at_least(1), metavar="R", help="rank of every layer of lora")
    options.add_argument(
        "--base-model", type=source_argument, metavar="SOURCE", help="where the run's base model is now"
    )
    drawing = options.add_argument_group("comfyui")
    drawing.add_argument("--prompt", type=composed, action="append", metavar="TEXT", help="what to draw")
    drawing.add_argument(
        "--region",
        type=composed,
        action="append",
        metavar="X0,Y0,X1,Y1:TEXT[|NEGATIVE]",
        help="a box, in fractions of the picture, with a prompt of its own, as in generate",
    )
    drawing.add_argument("--negative-prompt", type=composed, metavar="TEXT", help="what no picture shall show")
    drawing.add_argument("--n", type=at_least(1), help="pictures of each prompt (1)")
    drawing.add_argument("--seed", type=at_least(0), help="seed of the sampler (0)")
    drawing.add_argument("--steps", type=at_least(1), help="steps of the sampler (as in the run's samples)")
    drawing.add_argument("--guidance", type=finite_number, help="scale of guidance (as in the run's samples)")
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if the run's concepts cannot be exported so, the base model is not to be found, or files are in the
            way, damaged, or cannot be written.
    """
    arguments = parser().parse_args(argv)
    check_options(arguments)
    folder = RunFolder.existing(arguments.run)
    name = checked_name(arguments.name, folder.path)
    # Here, so that --help does not wait for torch.
    from cns_lightning.export.learned import Learned

    learned = Learned.of(folder, arguments.upto)
    say = ProgressDisplay().status
    lines = (_workflow if arguments.format == "comfyui" else _files)(arguments, learned, name, say)
    sys.stdout.write("\n".join(lines) + "\n")
    return EXIT_DONE


def check_options(arguments: argparse.Namespace) -> None:
    """Refuses options that the format does not have, or lacks one that it needs.

    Raises:
        UserError: naming all of them.
    """
    problems = Problems()
    for name in sorted({name for names in OPTIONS.values() for name in names}):
        if getattr(arguments, name) is None or name in OPTIONS[arguments.format]:
            continue
        having = " or ".join(each for each, names in OPTIONS.items() if name in names)
        problems.add(
            f"--{name.replace('_', '-')}", f"has no meaning for {arguments.format}", f"Leave it out, or export {having}"
        )
    if arguments.format == "lora" and arguments.rank is None:
        problems.add("--rank", "is missing", "Give one, such as --rank 32; the export says what it leaves out")
    problems.raise_if_any()


def checked_name(given: str | None, run: Path) -> str:
    """Returns the name of the weight files: letters, digits, - and _, as prompts of A1111 can hold.

    Args:
        given: what the user asks for; None takes the name of the run folder.
        run: the run folder.

    Raises:
        UserError: if the user's own name has other characters.
    """
    if given is None:
        return re.sub(r"[^A-Za-z0-9_-]+", "-", run.resolve().name).strip("-") or "cns"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", given):
        raise UserError("--name", f"is {given!r}, and programs take letters, digits, - and _", "Choose another name")
    return given


def _files(arguments: argparse.Namespace, learned: Learned, name: str, say: Say) -> list[str]:
    from cns_lightning.export.diffusers import export_diffusers
    from cns_lightning.export.folder import claimed_folder
    from cns_lightning.export.lora import export_lora
    from cns_lightning.export.package import PackageOptions
    from cns_lightning.export.shira import export_shira
    from cns_lightning.export.webui import export_webui

    options = PackageOptions(
        out=arguments.out,
        name=name,
        dtype=arguments.dtype or ("float32" if arguments.format in EXACT else "float16"),
        per_concept=bool(arguments.per_concept),
        bundle=bool(arguments.bundle),
        licence=arguments.license,
    )
    exporters = {"diffusers": export_diffusers, "webui": export_webui, "shira": export_shira}
    with claimed_folder(arguments.out, arguments.format):
        if arguments.format == "lora":
            return export_lora(learned, options, arguments.rank, arguments.base_model, say)
        return exporters[arguments.format](learned, options, arguments.base_model, say)


def _workflow(arguments: argparse.Namespace, learned: Learned, name: str, say: Say) -> list[str]:
    from cns_lightning.drawing.request import DrawingRequest
    from cns_lightning.export.comfyui import WorkflowOptions, export_comfyui

    request = DrawingRequest(
        prompts=tuple(arguments.prompt or ()),
        regions=tuple(arguments.region or ()),
        negative_prompt=arguments.negative_prompt or "",
        pictures=arguments.n or 1,
        seed=arguments.seed or 0,
        steps=arguments.steps,
        guidance=arguments.guidance,
    )
    options = WorkflowOptions(arguments.out, name, request, bool(arguments.per_concept))
    return export_comfyui(learned, options, arguments.base_model, say)
