"""``init``: writes a sequence file for folders of pictures, asking what it cannot know."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cns_lightning.cli.arguments import path_argument
from cns_lightning.errors import EXIT_DONE, Problems, SeveralUserErrors, UserError
from cns_lightning.sequences.drafts import (
    DraftConcept,
    check_draft,
    evaluation_prompts,
    free_token,
    read_class_word,
    read_token,
    sequence_text,
    usual_class_word,
    usual_kind,
)
from cns_lightning.sequences.sequence import KINDS, picture_files, unknown_word
from cns_lightning.user_files import CONFIGS, command_line

if TYPE_CHECKING:
    from collections.abc import Callable

USUAL_FILE = "sequence.yaml"
BASES = ("sd15", "sd21", "sdxl", "miniature")

_EXPLANATION = """\
--token, --class-word and --kind may be repeated: one for each --images, in their order. What is not given is asked for
on a terminal; elsewhere tokens and kinds take their usual values, and every class word has to be given.

  python -m cns_lightning init --images photos/momo --class-word cat --images photos/mug --class-word mug \\
      --out family.yaml
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's arguments."""
    options = argparse.ArgumentParser(
        prog="python -m cns_lightning init",
        description="Writes a sequence file for folders of pictures: concepts in learning order, evaluation prompts.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument(
        "--images", action="append", type=path_argument, required=True, metavar="DIR", help="pictures of one concept"
    )
    options.add_argument(
        "--class-word", action="append", default=[], metavar="WORD", help="what it is, such as cat or coffee mug"
    )
    options.add_argument(
        "--kind", action="append", default=[], metavar="KIND", help=f"{', '.join(KINDS)}; usually follows the word"
    )
    options.add_argument(
        "--token", action="append", default=[], metavar="TOKEN", help="word for prompts; from the folder's name"
    )
    options.add_argument(
        "--base", choices=BASES, default=BASES[0], help=f"base model of the commands that come next ({BASES[0]})"
    )
    options.add_argument(
        "--out", type=path_argument, default=Path(USUAL_FILE), metavar="FILE", help=f"the file ({USUAL_FILE})"
    )
    options.add_argument("--force", action="store_true", help="replace the file if it is there")
    return options


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code.

    Raises:
        UserError: if a folder, word or place cannot be used, or the file is there already.
    """
    arguments = parser().parse_args(argv)
    check(arguments)
    concepts = _concepts(arguments)
    check_draft(concepts)
    # Here, so that --help does not wait for torch.
    from cns_lightning.storage import write_atomically

    write_atomically(arguments.out, sequence_text(concepts, arguments.out.stem, arguments.out.parent).encode())
    sys.stdout.write(_told(concepts, arguments.out, arguments.base))
    return EXIT_DONE


def check(arguments: argparse.Namespace) -> None:
    """Refuses what cannot be written or read, before anything is asked.

    Raises:
        UserError: if there are more words than folders, the file is there already or cannot be written, or folders hold
            no concept.
    """
    for flag in ("class_word", "kind", "token"):
        given = len(getattr(arguments, flag))
        if given > len(arguments.images):
            problem = f"is given {given} times for {len(arguments.images)} folders"
            raise UserError(f"--{flag.replace('_', '-')}", problem, "Give one for each --images, in their order")
    for kind in arguments.kind:
        _read_kind(kind)
    _check_place(arguments.out, arguments.force)
    _check_folders(arguments.images)


def _check_place(path: Path, may_replace: bool) -> None:
    if path.is_dir():
        raise UserError(f"--out {path}", "is a folder", f"Give the path of a file, such as {path / USUAL_FILE}")
    if path.exists() and not may_replace:
        raise UserError(f"--out {path}", "is there already", "Give another path, or --force to replace it")
    from cns_lightning.runs.folder import make_folder

    make_folder(path.absolute().parent, f"--out {path}")


def _check_folders(folders: list[Path]) -> None:
    """Refuses folders that hold no concept, as if all questions about them were answered."""
    problems, there = Problems(), [folder for folder in folders if folder.is_dir()]
    for folder in folders:
        if folder not in there:
            problems.add(f"--images {folder}", "is not a folder", "Give a folder of pictures of one concept")
    trial = [DraftConcept(f"<new{number}>", "thing", "object", folder) for number, folder in enumerate(there)]
    try:
        if trial:
            check_draft(trial)
    except UserError as error:
        problems.found += error.problems if isinstance(error, SeveralUserErrors) else [error]
    problems.raise_if_any()


def _concepts(arguments: argparse.Namespace) -> list[DraftConcept]:
    """Returns the concepts as the flags, the person at the terminal and the usual values have them."""
    given: list[str] = []
    for token in arguments.token:
        given.append(read_token(token, given))
    concepts: list[DraftConcept] = []
    for number, images in enumerate(arguments.images):
        name = Path(os.path.abspath(images)).name  # of . and .. too
        if sys.stdin.isatty():
            sys.stdout.write(f"{images}: {len(picture_files(images))} pictures\n")
        class_word = _class_word(arguments.class_word[number : number + 1], images, name)
        kind = _kind(arguments.kind[number : number + 1], class_word)
        taken = [*given, *(concept.token for concept in concepts)]
        if number < len(given):
            token = given[number]
        else:
            token = _answer("token, its word in prompts", free_token(name, taken), partial(read_token, taken=taken))
        concepts.append(DraftConcept(token, class_word, kind, images))
    return concepts


def _class_word(given: list[str], images: Path, name: str) -> str:
    if given:
        return read_class_word(given[0])
    if not sys.stdin.isatty():
        raise UserError(f"--class-word of {images}", "is missing", "Give one for each --images, in their order")
    return _answer("class word, what it is (cat, mug, garden)", usual_class_word(name), read_class_word)


def _kind(given: list[str], class_word: str) -> str:
    usual, is_certain = usual_kind(class_word)
    if given:
        return given[0]
    return usual if is_certain else _answer(f"kind ({', '.join(KINDS)})", usual, _read_kind)


def _read_kind(text: str) -> str:
    if text not in KINDS:
        raise UserError("--kind", f"is {text}, no kind of concept", unknown_word(text, KINDS))
    return text


def _answer(question: str, usual: str, read: Callable[[str], str]) -> str:
    """Asks on a terminal until the answer can be read; elsewhere, and for an empty answer, takes what is usual.

    Raises:
        KeyboardInterrupt: at the end of the input.
    """
    while sys.stdin.isatty():
        sys.stdout.write(f"  {question}{f' [{usual}]' if usual else ''}: ")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt
        try:
            return read(line.strip() or usual)
        except UserError as error:
            sys.stdout.write(f"  {error.problem}. {error.remedy}\n")
    return usual


def _told(concepts: list[DraftConcept], path: Path, base: str) -> str:
    """Returns what was written, and the commands that come next."""
    count = sum(len(prompts) for prompts in evaluation_prompts(concepts).values())
    width = max(len(concept.words) for concept in concepts)
    words = [*stack_of(base), "--data.sequence", str(path), "--run", f"runs/{path.stem}"]
    lines = [
        f"{path}: {len(concepts)} {'concept' if len(concepts) == 1 else 'concepts'}, {count} evaluation prompts",
        *(f"  {concept.words:<{width}}  {concept.kind:<6}  {concept.images}" for concept in concepts),
        "Look through it and change what you like; then see whether anything would go wrong:",
        f"  {command_line(['doctor', *words])}",
        "and learn:",
        f"  {command_line(['fit', *words])}",
    ]
    return "\n".join(lines) + "\n"


def stack_of(base: str) -> list[str]:
    """Returns the configuration for a base model; without the repository these names mean the installed files."""
    if base == "miniature":
        names = ["base/miniature.yaml", "miniature/data.yaml", "miniature/cns.yaml", "hardware/auto.yaml"]
    else:
        names = [f"base/{base}.yaml", "methods/cns.yaml", "hardware/one_gpu.yaml"]
    return [word for name in names for word in ("--config", f"{CONFIGS}/{name}")]
