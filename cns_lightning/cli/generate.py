"""``generate``: pictures from what a run has learned."""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cns_lightning.cli.arguments import add_model_options, at_least, finite_number, path_argument
from cns_lightning.errors import EXIT_DONE, Problems, UserError
from cns_lightning.progress import ProgressDisplay
from cns_lightning.runs.folder import RunFolder, make_folder
from cns_lightning.sequences.sequence import TOKEN
from cns_lightning.user_files import command_line, composed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning generate", description="Draws pictures with the concepts that a run has learned."
    )
    options.add_argument("--run", type=path_argument, required=True, metavar="DIR", help="run folder")
    options.add_argument(
        "--prompt",
        type=composed,
        action="append",
        required=True,
        metavar="TEXT",
        help="what to draw; may be given several times",
    )
    options.add_argument(
        "--region",
        type=composed,
        action="append",
        default=[],
        metavar="X0,Y0,X1,Y1:TEXT[|NEGATIVE]",
        help="a box, in fractions of the picture, that listens to a prompt of its own, and to a negative one behind a "
        "bar; may be given several times",
    )
    options.add_argument(
        "--negative-prompt", type=composed, default="", metavar="TEXT", help="what no picture shall show"
    )
    options.add_argument(
        "--strength",
        type=composed,
        action="append",
        default=[],
        metavar="TOKEN=NUMBER",
        help="how much of what a concept adds to the weights is taken, 1 for all; may be given several times",
    )
    options.add_argument("--n", type=at_least(1), default=4, help="pictures of each prompt (4)")
    options.add_argument("--seed", type=int, default=0, help="seed of the first picture; the next ones count up (0)")
    options.add_argument("--upto", type=composed, metavar="TOKEN", help="the model as it was right after this concept")
    options.add_argument(
        "--out",
        type=path_argument,
        metavar="FILE.png",
        help="one picture, or all on one sheet (DIR/generated/PROMPT.png)",
    )
    options.add_argument(
        "--folder", type=path_argument, metavar="DIR", help="write every picture to a file of its own in here"
    )
    options.add_argument(
        "--steps", type=at_least(1), help="steps of the sampler for a picture (as in the run's samples)"
    )
    options.add_argument(
        "--guidance", type=finite_number, help="how closely prompts are followed (as in the run's samples)"
    )
    options.add_argument("--batch-size", type=at_least(1), default=8, help="pictures drawn at once (8)")
    add_model_options(options)
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if the run folder holds no registry, a prompt names an unknown token, the device is not there, or
            files cannot be written.
    """
    arguments = parser().parse_args(argv)
    folder = RunFolder.existing(arguments.run)
    check_places(arguments, folder)
    strengths = read_strengths(arguments.strength)
    # Here, so that --help does not wait for torch.
    from cns_lightning.diffusion.devices import available_device
    from cns_lightning.drawing.request import DrawingRequest, without_brackets
    from cns_lightning.pipeline import load_pipeline
    from cns_lightning.registry.registry import NeuronRegistry

    request = DrawingRequest(
        prompts=tuple(arguments.prompt),
        regions=tuple(arguments.region),
        negative_prompt=arguments.negative_prompt,
        strengths=strengths,
        pictures=arguments.n,
        seed=arguments.seed,
        upto=arguments.upto,
        steps=arguments.steps,
        guidance=arguments.guidance,
        batch_size=arguments.batch_size,
    )
    registry = NeuronRegistry.load(folder.registry)
    request.check(registry)
    device = available_device(arguments.device)
    display = ProgressDisplay()
    display.event(f"loading the model of {arguments.run} to {device}")
    pipe = load_pipeline(arguments.run, arguments.upto, arguments.base_model, device=device, strengths=strengths)
    for sentence in without_brackets(pipe.tokenizer, request.texts(), registry.tokens):
        display.event(sentence)
    pictures = request.draw(pipe, folder, lambda done, total: display.status(f"picture {done} of {total}"))
    for sentence in _written(arguments, folder, pictures, request.seeds):
        display.event(sentence)
    words = ["export", "--run", str(arguments.run), "--format", "webui", "--out", f"exports/{folder.path.name}"]
    display.event(f"next: {command_line(words)}")
    return EXIT_DONE


def check_places(arguments: argparse.Namespace, folder: RunFolder) -> None:
    """Sees before anything is drawn whether the pictures can be written.

    Raises:
        UserError: if they cannot.
    """
    out: Path | None = arguments.out
    if out is not None:
        if out.suffix.lower() != ".png":
            raise UserError("--out", f"{out} does not end in .png", "Give a name such as pictures.png")
        if out.is_dir():
            raise UserError("--out", f"{out} is a folder", "Give a name such as pictures.png, or use --folder")
        make_folder(out.parent, f"--out {out}")
    if arguments.folder is not None:
        make_folder(arguments.folder, f"--folder {arguments.folder}")
    if out is None and arguments.folder is None:
        make_folder(folder.generated, str(folder.generated))


def read_strengths(given: Sequence[str]) -> dict[str, float]:
    """Reads every --strength, a factor by token.

    Raises:
        UserError: naming every one that is not ``TOKEN=NUMBER`` or names a token again.
    """
    strengths: dict[str, float] = {}
    problems = Problems()
    for text in given:
        token, _, number = text.rpartition("=")
        try:
            value = finite_number(number)
        except argparse.ArgumentTypeError:
            value = None
        if value is None or not TOKEN.fullmatch(token.strip()):
            problems.add(f"--strength {text!r}", "is not a token and a number", 'Write it as "<new1>=0.7"')
        elif token.strip() in strengths:
            problems.add(f"--strength {text!r}", f"{token.strip()} has a strength already", "Give it once")
        else:
            strengths[token.strip()] = value
    problems.raise_if_any()
    return strengths


def _written(
    arguments: argparse.Namespace, folder: RunFolder, pictures: list[Image.Image], seeds: list[int]
) -> list[str]:
    """Writes the pictures where the user wants them and says where they are.

    A file that was named is replaced; names that were made up give way to what is there.
    """
    from cns_lightning.storage import write_atomically

    prompts: list[str] = arguments.prompt
    files: dict[Path, Image.Image] = {}
    if arguments.folder is not None:
        for number, picture in enumerate(pictures):
            prompt, seed = prompts[number // len(seeds)], seeds[number % len(seeds)]
            place = f"{number // len(seeds):02d}-" if len(prompts) > 1 else ""
            files[arguments.folder / f"{place}{file_stem(prompt)}-{seed}.png"] = picture
    if arguments.out is not None or arguments.folder is None:
        name = f"{file_stem(prompts[0])}-{seeds[0]}"
        name += f"-and-{len(prompts) - 1}-more" if len(prompts) > 1 else ""
        name += f"-upto-{file_stem(arguments.upto)}" if arguments.upto else ""
        files[arguments.out or folder.generated / f"{name}.png"] = sheet(pictures, prompts, seeds)
    said = []
    for place, picture in files.items():
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        named = place == arguments.out
        there = place if named else free_place(place, buffer.getvalue())
        said.append(f"{'replaced' if named and there.exists() else 'wrote'} {there}")
        write_atomically(there, buffer.getvalue())
    return said


def free_place(place: Path, data: bytes) -> Path:
    """Returns a path that holds nothing else yet: the given one, or with ``-2``, ``-3``, ... behind its name."""
    found, number = place, 1
    while found.exists() and found.read_bytes() != data:
        number += 1
        found = place.with_name(f"{place.stem}-{number}{place.suffix}")
    return found


def sheet(pictures: list[Image.Image], prompts: list[str], seeds: list[int]) -> Image.Image:
    """Lays the pictures out, one row per prompt and one column per seed; a single one stays as it is."""
    from cns_lightning.diffusion.sheets import grid

    if len(pictures) == 1:
        return pictures[0]
    rows = [pictures[start : start + len(seeds)] for start in range(0, len(pictures), len(seeds))]
    return grid(rows, list(prompts), [f"seed {seed}" for seed in seeds])


def file_stem(prompt: str) -> str:
    """Makes a file name of a prompt: its letters and digits, at most 60."""
    return re.sub(r"[^\w]+", "-", prompt).strip("-")[:60].rstrip("-") or "picture"
