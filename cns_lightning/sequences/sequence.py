"""A sequence of concepts in learning order: read from YAML, with every fault said at once."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_lightning.errors import Problems, UserError
from cns_lightning.sequences.concept_settings import PROMPT, USUAL_KEYS, ConceptSettings, read_settings
from cns_lightning.user_files import composed, expanded, read_yaml, shipped

if TYPE_CHECKING:
    from collections.abc import Collection

KINDS = ("animal", "object", "scene", "style")
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
AVIF_SUFFIXES = (".avif",)
"""Read where Pillow was built with AVIF, as from 11.3 on."""
HEIF_SUFFIXES = (".heic", ".heif")
"""Read where pillow-heif is installed."""
CAPTION_SUFFIXES = (".txt", ".caption")
MASK_ENDINGS = (".mask", "-masklabel")
"""How the name of a mask goes on after that of its picture, in front of ``.png`` or another ending of pictures."""
WINDOWS_FILES = ("thumbs.db", "desktop.ini")
FEWEST_PICTURES = 3
LONGEST_TOKEN = 60
TOKEN = re.compile(r"<[^<>\s]+>")
SEQUENCE_KEYS = ("name", "concepts", "prompts")
CONCEPT_KEYS = ("token", "class_word", "kind", "images")
OPTIONAL_KEYS = ("description",)
SETTINGS = "settings"
PROMPT_KEYS = {"single": 1, "double": 2, "triple": 3}
"""Lists of prompts, and how many concepts each of their prompts names."""


@dataclass(frozen=True)
class Concept:
    """What a user teaches.

    Attributes:
        token: the word used in prompts, such as ``<new1>``.
        class_word: what it is; the token's embedding starts from it.
        kind: animal, object, scene or style.
        images: folder of its pictures, absolute.
        description: the most that words can say of it, such as ``grey striped cat with a bell``; `compare` draws what
            the base model makes of it. Nothing is learned from it.
        settings: what its stage does otherwise than the run.
    """

    token: str
    class_word: str
    kind: str
    images: Path
    description: str = ""
    settings: ConceptSettings = field(default_factory=ConceptSettings)


@dataclass(frozen=True)
class EvaluationPrompts:
    """Prompts that name one, two or three concepts."""

    single: tuple[str, ...] = ()
    double: tuple[str, ...] = ()
    triple: tuple[str, ...] = ()

    def all(self) -> tuple[str, ...]:
        """Returns all prompts, singles first."""
        return self.single + self.double + self.triple


@dataclass(frozen=True)
class Sequence:
    """Concepts in learning order and evaluation prompts."""

    name: str
    concepts: tuple[Concept, ...]
    prompts: EvaluationPrompts
    path: Path | None = None

    @classmethod
    def read(cls, path: Path, learned: Collection[str] = ()) -> Sequence:
        """Reads a sequence file; picture folders are relative to it.

        Args:
            path: path of the file.
            learned: tokens of concepts whose pictures are needed no more.

        Raises:
            UserError: listing every fault of the file.
        """
        problems = Problems()
        content = _read_mapping(path)
        _check_keys(problems, f"{path}: ", content, SEQUENCE_KEYS, ("concepts",))
        listed = content.get("concepts")
        if not isinstance(listed, list) or not listed:
            problems.add(f"{path}: concepts", "holds no list of concepts", "List at least one concept")
            problems.raise_if_any()
        assert isinstance(listed, list)
        concepts = [_concept(problems, path, number, entry, learned) for number, entry in enumerate(listed)]
        known = [concept for concept in concepts if concept is not None]
        _check_tokens(problems, path, concepts)
        # Where a concept could not be read, its token would be called unknown in every prompt.
        tokens = {concept.token for concept in known} if len(known) == len(listed) else None
        prompts = _prompts(problems, path, content.get("prompts") or {}, tokens)
        problems.raise_if_any()
        return cls(str(content.get("name") or path.stem), tuple(known), prompts, path)

    @classmethod
    def from_plain(cls, content: dict[str, Any]) -> Sequence:
        """Makes the sequence that `plain` gave; nothing is checked, the pictures may be gone."""
        concepts = tuple(
            Concept(
                **{
                    **each,
                    "images": Path(each["images"]),
                    SETTINGS: ConceptSettings.from_plain(each.get(SETTINGS) or {}),
                }
            )
            for each in content["concepts"]
        )
        prompts = EvaluationPrompts(**{name: tuple(listed) for name, listed in content["prompts"].items()})
        return cls(content["name"], concepts, prompts)

    def plain(self) -> dict[str, Any]:
        """Returns the sequence as plain values, picture folders absolute."""
        return {
            "name": self.name,
            "concepts": [
                {"token": each.token, "class_word": each.class_word, "kind": each.kind, "images": str(each.images)}
                | ({"description": each.description} if each.description else {})
                | ({SETTINGS: settings} if (settings := each.settings.plain()) else {})
                for each in self.concepts
            ],
            "prompts": {
                "single": list(self.prompts.single),
                "double": list(self.prompts.double),
                "triple": list(self.prompts.triple),
            },
        }

    def without_own_steps(self) -> Sequence:
        """Returns the sequence with the steps of the run for every stage."""
        settings = [replace(each.settings, steps=None) for each in self.concepts]
        concepts = (replace(each, settings=own) for each, own in zip(self.concepts, settings, strict=True))
        return replace(self, concepts=tuple(concepts))


def sequence_path(given: str) -> Path:
    """Returns the path of a sequence file; a bare name stands for one that ships, such as ``miniature_set1``.

    So does the path that it has in the repository, ``configs/sequences/miniature_set1.yaml``, where there is none.
    """
    path = expanded(given)
    if path.is_file():
        return path
    is_name = len(path.parts) == 1 and not path.suffix
    found = shipped(f"sequences/{given}" if is_name else str(path))
    return found if found.is_file() else path


def register_heif() -> bool:
    """Teaches Pillow to read HEIC pictures with pillow-heif; returns False where that is not installed."""
    try:
        pillow_heif = import_module("pillow_heif")
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@cache
def _reads_avif() -> bool:
    from PIL import features

    return "avif" in features.get_supported_modules()


def _readable() -> tuple[str, ...]:
    return (*SUFFIXES, *(HEIF_SUFFIXES if register_heif() else ()), *(AVIF_SUFFIXES if _reads_avif() else ()))


def is_readable_folder(path: Path) -> bool:
    """Returns whether there is a folder whose files can be listed and read."""
    return path.is_dir() and os.access(path, os.R_OK | os.X_OK)


def picture_files(folder: Path) -> list[Path]:
    """Lists the pictures of a folder by name, without masks; what else it holds, `left_out` names.

    Raises:
        UserError: if the folder cannot be read.
    """
    suffixes = _readable()
    try:
        files = list(folder.iterdir())
    except OSError as error:
        remedy = "Give yourself the right to read the folder and what is in it"
        raise UserError(str(folder), f"cannot be read ({error.strerror})", remedy) from error
    found = (path for path in files if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in found if path.suffix.lower() in suffixes and not is_mask(path))


def is_mask(path: Path) -> bool:
    """Returns whether a file is called as the mask of a picture is."""
    return path.stem.lower().endswith(MASK_ENDINGS)


def masks_beside(picture: Path) -> list[Path]:
    """Lists the masks of a picture by their names, such as ``1.mask.png``; more than one cannot be told apart."""
    rest = {path: path.stem.removeprefix(picture.stem).lower() for path in picture.parent.iterdir()}
    found = [path for path, ending in rest.items() if ending in MASK_ENDINGS and path.stem.startswith(picture.stem)]
    return sorted(path for path in found if path.suffix.lower() in _readable())


def captions_beside(picture: Path) -> list[Path]:
    """Lists the text files of a picture's name, in upper or lower case; more than one cannot be told apart."""
    found = (path for path in picture.parent.iterdir() if path.stem == picture.stem)
    return sorted(path for path in found if path.suffix.lower() in CAPTION_SUFFIXES)


def left_out(folder: Path, told: Collection[str] = ()) -> str:
    """Says what a folder holds beside pictures, captions and masks, and why that is not read; empty for nothing.

    Hidden files and those that Windows leaves in folders of pictures are not worth a word.

    Args:
        folder: folder of pictures.
        told: names of which something was said already.
    """
    pictures = picture_files(folder)
    beside = {each for path in pictures for each in (*captions_beside(path), *masks_beside(path))}
    reasons: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        is_trifle = path.name.startswith(".") or path.name.lower() in WINDOWS_FILES or path.name in told
        if path in pictures or path in beside or is_trifle:
            continue
        if path.is_dir():
            reason = "in a folder of their own"
        elif not path.exists():
            reason = "links to what is not there"
        elif is_mask(path) and path.suffix.lower() in _readable():
            reason = "a mask without its picture"
        elif path.suffix.lower() in HEIF_SUFFIXES:
            reason = "HEIC, which needs pip install pillow-heif"
        elif path.suffix.lower() in AVIF_SUFFIXES:
            reason = "AVIF, which needs Pillow 11.3 or later"
        else:
            reason = "of another kind"
        reasons.setdefault(reason, []).append(path.name)
    return "; ".join(f"{_some(names)} ({reason})" for reason, names in reasons.items())


def _some(names: list[str], most: int = 3) -> str:
    listed = ", ".join(names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"


def unknown_word(word: str, known: tuple[str, ...] | list[str]) -> str:
    """Returns the remedy for a word that is none of the known ones."""
    near = difflib.get_close_matches(word, known, 1)
    return f"Did you mean {near[0]}" if near else f"Use one of {', '.join(known)}"


def _read_mapping(path: Path) -> dict[str, Any]:
    content = read_yaml(path, "Give the path of a sequence file")
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        problem = f"holds {found} where name, concepts and prompts are needed"
        raise UserError(str(path), problem, "Write one with init --images DIR")
    return content


def _check_keys(
    problems: Problems, where: str, entry: dict[str, Any], known: tuple[str, ...], needed: tuple[str, ...]
) -> None:
    for key in entry:
        if key not in known:
            problems.add(f"{where}{key}", "is an unknown key", unknown_word(str(key), known))
    for key in needed:
        if key not in entry:
            problems.add(f"{where}{key}", "is missing", f"Add the key {key}")


def _concept(problems: Problems, path: Path, number: int, entry: Any, learned: Collection[str]) -> Concept | None:
    where = f"{path}: concepts[{number}]"
    if not isinstance(entry, dict):
        problems.add(where, f"is {entry!r}", f"Give the keys {', '.join(CONCEPT_KEYS)}")
        return None
    _check_keys(problems, f"{where}.", entry, (*CONCEPT_KEYS, *OPTIONAL_KEYS, SETTINGS), CONCEPT_KEYS)
    for key in CONCEPT_KEYS + OPTIONAL_KEYS:
        if key in entry and (not isinstance(entry[key], str) or not entry[key].strip()):
            problems.add(f"{where}.{key}", f"is {entry[key]!r}, a word is needed", f'Write {key}: "..."')
            return None
    if any(key not in entry for key in CONCEPT_KEYS):
        return None
    if entry["kind"] not in KINDS:
        problems.add(f"{where}.kind", f"is {entry['kind']}, no kind of concept", unknown_word(entry["kind"], KINDS))
    if not TOKEN.fullmatch(entry["token"]):
        problem = f"is {entry['token']}, a token is a word in angle brackets"
        problems.add(f"{where}.token", problem, 'Write it like "<new1>", without spaces')
    elif len(entry["token"]) > LONGEST_TOKEN:
        problem = f"has {len(entry['token'])} characters, and files are named after it"
        problems.add(f"{where}.token", problem, f"Take one of at most {LONGEST_TOKEN}")
    images = (path.parent / expanded(entry["images"])).absolute()
    token, class_word = composed(entry["token"]), composed(entry["class_word"].strip())
    if token not in learned:
        _check_pictures(problems, f"{where}.images", images)
    description = composed(entry.get("description", "").strip())
    if named := TOKEN.findall(description):
        problems.add(f"{where}.description", f"names {named[0]}", "Say it in words that the base model knows")
    settings = _settings(problems, f"{where}.{SETTINGS}", entry.get(SETTINGS), token)
    return Concept(token, class_word, entry["kind"], images, description, settings)


def _settings(problems: Problems, where: str, entry: Any, token: str) -> ConceptSettings:
    """Reads the settings of a concept; its prompt names the token alone, in the case of the sequence."""
    entry = {} if entry is None else entry
    wrong = [str(key) for key in entry] if isinstance(entry, dict) else []
    remedies = {key: unknown_word(key, USUAL_KEYS) for key in wrong}
    found = read_settings(problems, where, entry, remedies)
    prompt = composed(found.prompt)
    named = {each.lower() for each in TOKEN.findall(prompt)}
    if prompt and named != {token.lower()}:
        problem = f"names {', '.join(sorted(named)) or 'no token'}, a training prompt names {token} alone"
        problems.add(f"{where}.{PROMPT}", problem, f"Write it like: a photo of a {token} ...")
    return replace(found, prompt=TOKEN.sub(lambda _: token, prompt))


def _check_pictures(problems: Problems, where: str, folder: Path) -> None:
    if not folder.is_dir():
        problems.add(where, f"{folder} is not a folder", "Give the folder of the pictures, relative to this file")
        return
    try:
        count = len(picture_files(folder))
    except UserError as error:
        problems.add(f"{where}: {error.where}", error.problem, error.remedy)
        return
    if count < FEWEST_PICTURES:
        beside = left_out(folder)
        problem = f"{folder} holds {count} pictures, at least {FEWEST_PICTURES} are needed"
        problem += f"; left out: {beside}" if beside else ""
        problems.add(where, problem, "Add pictures, or remove the concept")


def _check_tokens(problems: Problems, path: Path, concepts: list[Concept | None]) -> None:
    seen: dict[str, int] = {}
    for number, concept in enumerate(concepts):
        if concept is None:
            continue
        # CLIP reads lower case alone: <New1> and <new1> would be one token.
        key = concept.token.lower()
        if key in seen:
            problem = f"{concept.token} is the token of concepts[{seen[key]}] already"
            problems.add(f"{path}: concepts[{number}].token", problem, "Give every concept a token of its own")
        seen.setdefault(key, number)


def check_place(problems: Problems, where: str, key: str, prompt: str, remedy: str = "") -> None:
    """Notes a prompt that names more or fewer concepts than those of its list."""
    named, needed = len(set(TOKEN.findall(prompt))), PROMPT_KEYS[key]
    if named != needed:
        problem = f"names {named} {'concept' if named == 1 else 'concepts'}, a {key} prompt names {needed}"
        usual = "Move it to the list for as many; prompts that name none belong in samples.base_prompts"
        problems.add(where, problem, remedy or usual)


def _prompts(problems: Problems, path: Path, entry: Any, tokens: set[str] | None) -> EvaluationPrompts:
    where = f"{path}: prompts"
    if not isinstance(entry, dict):
        problems.add(where, f"is {entry!r}", f"Give lists under {', '.join(PROMPT_KEYS)}")
        return EvaluationPrompts()
    _check_keys(problems, f"{where}.", entry, tuple(PROMPT_KEYS), ())
    lists: dict[str, tuple[str, ...]] = {}
    for key in PROMPT_KEYS:
        prompts = entry.get(key) or []
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            problems.add(f"{where}.{key}", "is not a list of texts", "Write one prompt per line, each after a dash")
            continue
        prompts = [composed(prompt) for prompt in prompts]
        for number, prompt in enumerate(prompts):
            check_place(problems, f"{where}.{key}[{number}]", key, prompt)
            for token in TOKEN.findall(prompt):
                if tokens is not None and token not in tokens:
                    problem = f"names {token}, and no concept has this token"
                    problems.add(f"{where}.{key}[{number}]", problem, unknown_word(token, sorted(tokens)))
        lists[key] = tuple(prompts)
    return EvaluationPrompts(**lists)
