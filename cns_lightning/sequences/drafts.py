"""Sequence files made from folders of pictures: tokens, kinds and evaluation prompts, for a person to look through."""

from __future__ import annotations

import itertools
import math
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from cns_lightning.errors import SeveralUserErrors, UserError
from cns_lightning.sequences.sequence import TOKEN, Sequence
from cns_lightning.user_files import composed, expanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ANIMALS = frozenset(
    "alpaca animal bear beaver bee bird budgie bull bunny butterfly camel canary cat chameleon chick chicken "
    "chinchilla cockatiel cow crab crocodile crow deer dog dolphin donkey dragon dragonfly duck eagle elephant "
    "ferret fish flamingo fox frog gecko gerbil giraffe goat goldfish goose gorilla hamster hare hawk hedgehog "
    "hen hippo horse iguana jaguar kangaroo kitten koala lamb leopard lion lizard llama monkey moose mouse "
    "octopus otter owl panda parrot peacock penguin pet pig pigeon pony puppy rabbit raccoon rat raven reindeer "
    "rhino rooster salamander seal shark sheep sloth snail snake spider squirrel stork swan tiger toad tortoise "
    "turkey turtle whale wolf zebra".split()
)
SCENES = frozenset(
    "alley attic backyard bay beach bedroom canyon cave city cliff coast courtyard desert farm field forest garden "
    "harbor harbour hill kitchen lake landscape meadow mountain orchard park pond river room scene sea seaside shore "
    "skyline street town valley village waterfall wood yard".split()
)
STYLES = frozenset(
    "anime art cartoon drawing engraving etching illustration lineart painting pastel sketch style watercolor "
    "watercolour woodcut".split()
)
DIGITS = "zero one two three four five six seven eight nine".split()
PREFIX = "cns"
"""What makes a word of a token that is none in any vocabulary: ``momo`` is one word of CLIP's, ``cnsmomo`` is not."""
LONGEST_NAME = 32
"""Characters of a folder's name that its token takes."""
CHUNKS = re.compile(r"[^\W\d_]+|\d|(?:[^\s\w]|_)+")
"""Where CLIP's tokenizer splits before it looks for words: runs of letters, single digits, runs of other characters."""

SINGLE = {
    "animal": (
        "a photo of a {it} on the beach",
        "a photo of a {it} in the snow",
        "a photo of a {it} asleep on a sofa",
        "a photo of a {it} next to a red ball",
        "an oil painting of a {it}",
    ),
    "object": (
        "a photo of a {it} on the beach",
        "a photo of a {it} in the snow",
        "a photo of a {it} on a wooden table",
        "a photo of a {it} next to a sleeping cat",
        "an oil painting of a {it}",
    ),
    "scene": (
        "a photo of the {it}",
        "a photo of a dog in the {it}",
        "a photo of a red car in the {it}",
        "a photo of an old man in the {it}",
        "an oil painting of the {it}",
    ),
    "style": (
        "a cat {it}",
        "a boat on the sea {it}",
        "a house in the snow {it}",
        "a bowl of fruit on a table {it}",
        "a portrait of an old man {it}",
    ),
}
"""Five evaluation prompts of each kind, as in the paper's protocol."""
PLACES = ("", " on the beach", " in the snow", " on a street", " in a garden")
"""Where pairs are asked for again when there are fewer of them than prompts."""
TOGETHER = {"double": (2, 4), "triple": (3, 3)}
"""How many concepts a prompt names, and how many such prompts there are at least: as in the paper's protocol."""
MOST_GROUPS = 5000
"""Pairs and triples that are looked at, of a sequence of many concepts."""

HEADING = """\
# Concepts in learning order. Folders are relative to this file. A token may be any word in <...> that the base model
# does not know yet; the prompts are what evaluation will ask, learning needs none.
"""


@dataclass(frozen=True)
class DraftConcept:
    """A concept that is to be written into a sequence file.

    Attributes:
        token: the word used in prompts, such as ``<cnsmomo>``.
        class_word: what it is, such as ``cat``.
        kind: animal, object, scene or style.
        images: folder of its pictures.
    """

    token: str
    class_word: str
    kind: str
    images: Path

    @property
    def words(self) -> str:
        """The concept's words in a prompt, without an article."""
        return f"{self.token} {self.class_word}"

    @property
    def as_style(self) -> str:
        """How a prompt ends that asks for this style."""
        return f"in {self.words}" if self.class_word.split()[-1].lower() == "style" else f"in the style of {self.words}"


def usual_kind(class_word: str) -> tuple[str, bool]:
    """Returns the kind of concept that a class word stands for, and whether that goes without asking.

    It does for scenes and styles; a word of neither is an animal where it is on the list, and an object otherwise.
    """
    words = class_word.lower().split()
    last = words[-1].removesuffix("s") if words else ""
    for kind, known, is_certain in (("style", STYLES, True), ("scene", SCENES, True), ("animal", ANIMALS, False)):
        if words and not known.isdisjoint({words[-1], last}):
            return kind, is_certain
    return "object", False


def usual_class_word(folder: str) -> str:
    """Returns the class word that the name of a folder says; empty where it says none, or it may be a name."""
    words = re.findall(r"[^\W\d_]+", folder.lower())
    return words[-1] if words and words[-1] in ANIMALS | SCENES else ""


def stem(token: str) -> str:
    """Returns a token without its brackets: what other programs call it."""
    return token.removeprefix("<").removesuffix(">")


def chunks(name: str) -> tuple[str, ...]:
    """Returns the parts of a name that CLIP's tokenizer never joins, in lower case."""
    return tuple(CHUNKS.findall(name.lower()))


def clashes(first: str, second: str) -> bool:
    """Returns whether one of two tokens stands within the other for programs that know them without brackets.

    They look for the ids of a token anywhere in a prompt: ``new1`` is found in ``new10``. No word of CLIP's vocabulary
    reaches over the border of two chunks, and the last piece of a chunk is marked as such, so that this much can be
    told without a vocabulary: the chunks of one follow each other in the other.
    """
    one, other = chunks(stem(first)), chunks(stem(second))
    return _stands_in(one, other, is_whole=True) or _stands_in(other, one, is_whole=True)


def may_clash(first: str, second: str) -> bool:
    """Returns whether `clashes`, or some vocabulary could make it so: ``new1`` may end as the ids of ``brandnew1``.

    The beginning of a chunk is not marked, so the first chunk of one token may be the end of a longer one.
    """
    one, other = chunks(stem(first)), chunks(stem(second))
    return _stands_in(one, other, is_whole=False) or _stands_in(other, one, is_whole=False)


def _stands_in(part: tuple[str, ...], whole: tuple[str, ...], is_whole: bool) -> bool:
    parts = (whole[start : start + len(part)] for start in range(len(whole) - len(part) + 1))
    return any(
        (found[0] == part[0] if is_whole else found[0].endswith(part[0])) and found[1:] == part[1:] for found in parts
    )


def free_token(folder: str, taken: Iterable[str]) -> str:
    """Returns a token made from a folder's name: letters and digits, no word of a vocabulary, not like those taken.

    Args:
        folder: name of the folder.
        taken: tokens of the other concepts.
    """
    others = list(taken)
    for name in _names(folder):
        if not any(may_clash(name, other) for other in others):
            return f"<{name}>"
    raise AssertionError("there is no end of names")


def _names(folder: str) -> Iterator[str]:
    plain = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]", "", plain)[:LONGEST_NAME] or "concept"
    # A digit makes it more than one word of any vocabulary; first it cannot stand in every program.
    yield name if re.fullmatch(r"[a-z]+\d.*", name) else PREFIX + name
    spelled = re.sub(r"\d", lambda digit: DIGITS[int(digit[0])], name)
    yield PREFIX + spelled
    for length in itertools.count(1):
        yield from (PREFIX + spelled + "".join(ending) for ending in itertools.product("bcdfgk", repeat=length))


# ---- evaluation prompts ---------------------------------------------------------------------------------------------


def evaluation_prompts(concepts: list[DraftConcept]) -> dict[str, list[str]]:
    """Returns prompts for one, two and three concepts: five of each one, then groups in which all come up alike.

    Scenes and styles are where and how the others are shown; two scenes, or two styles, make no picture together.
    """
    single = [
        template.format(it=concept.as_style if concept.kind == "style" else concept.words)
        for concept in concepts
        for template in SINGLE[concept.kind]
    ]
    return {"single": single} | {name: _together(concepts, *count) for name, count in TOGETHER.items()}


def _together(concepts: list[DraftConcept], size: int, least: int) -> list[str]:
    possible = (group for group in itertools.combinations(concepts, size) if _said(group) is not None)
    groups = list(itertools.islice(possible, MOST_GROUPS))
    wanted = max(least, math.ceil(len(concepts) / size))
    used = dict.fromkeys((concept.token for concept in concepts), 0)
    chosen: list[tuple[DraftConcept, ...]] = []
    while groups and len(chosen) < wanted:
        group = min(groups, key=lambda each: sum(used[concept.token] for concept in each))
        groups.remove(group)
        chosen.append(group)
        for concept in group:
            used[concept.token] += 1
    prompts = [_said(group, place) for place in PLACES for group in chosen]
    return [prompt for prompt in prompts if prompt is not None][:wanted]


def _said(group: tuple[DraftConcept, ...], place: str = "") -> str | None:
    """Returns a prompt of several concepts; None where they make no picture, or stand in a place already."""
    by_kind = {kind: [each for each in group if each.kind == kind] for kind in ("scene", "style")}
    things = [f"a {each.words}" for each in group if each.kind not in by_kind]
    scenes, styles = (by_kind[kind] for kind in ("scene", "style"))
    if len(scenes) > 1 or len(styles) > 1 or not (things or scenes) or (place and scenes):
        return None
    said = " next to ".join(things) if len(things) < 3 else f"{', '.join(things[:-1])} and {things[-1]}"
    where = f"the {scenes[0].words}" if scenes else ""
    said = f"{said} in {where}" if said and where else said or where
    return f"{said}{place} {styles[0].as_style}" if styles else f"a photo of {said}{place}"


# ---- the file -------------------------------------------------------------------------------------------------------


def sequence_text(concepts: list[DraftConcept], name: str, start: Path | None) -> str:
    """Returns the text of a sequence file.

    Args:
        concepts: at least one.
        name: name of the sequence.
        start: folder of the file, to which the concepts' folders are relative; it exists. None names them from the
            root.
    """
    listed = [
        {
            "token": concept.token,
            "class_word": concept.class_word,
            "kind": concept.kind,
            "images": str(concept.images.absolute()) if start is None else written_path(concept.images, start),
        }
        for concept in concepts
    ]
    content: dict[str, Any] = {"name": name, "concepts": listed, "prompts": evaluation_prompts(concepts)}
    return HEADING + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def written_path(folder: Path, start: Path) -> str:
    """Returns how a sequence file names a folder: relative to the file where that leads there, else from the root.

    A project that is moved or copied as a whole keeps working that way. A relative name leads elsewhere behind a link,
    and where it would be read as a home folder; where the two share nothing but the root, nothing is gained by it.

    Args:
        folder: folder of pictures, which exists.
        start: folder of the sequence file; it exists.
    """
    whole, start = folder.absolute(), start.absolute()
    try:
        relative = os.path.relpath(whole, start)
        shared = Path(os.path.commonpath([whole, start]))
        leads_there = (start / expanded(relative)).samefile(whole)
    except (ValueError, OSError):  # on another drive; nowhere
        return str(whole)
    if not leads_there or not relative.strip() or shared == Path(shared.anchor):
        return str(whole)
    return Path(relative).as_posix()


def read_class_word(text: str) -> str:
    """Returns a class word as it is written into a file: single spaces, no brackets.

    Raises:
        UserError: if nothing is left, or it names a token.
    """
    words = composed(" ".join(text.split()))
    if not words or "<" in words or ">" in words:
        problem = "is empty" if not words else f"is {words!r}, and angle brackets are for tokens"
        raise UserError("--class-word", problem, "Say what it is in plain words, such as cat or coffee mug")
    return words


def read_token(text: str, taken: Iterable[str] = ()) -> str:
    """Returns a token with its brackets, which need not be given.

    Args:
        text: what a person wrote.
        taken: tokens of other concepts.

    Raises:
        UserError: if it is not a token, is that of another concept, or one of the two contains the other.
    """
    taken = list(taken)
    token = composed(text if text.startswith("<") else f"<{text}>")
    if not TOKEN.fullmatch(token):
        raise UserError("--token", f"is {text!r}", "Write one word, such as <cnsmomo>")
    for other in taken:
        if token.lower() == other.lower():
            raise UserError("--token", f"{token} is the token of another concept", "Give every concept one of its own")
        if clashes(token, other):
            inner, outer = sorted((token, other), key=lambda each: len(chunks(stem(each))))
            problem = f"{inner} stands within {outer} for programs that know tokens without brackets"
            raise UserError(
                "--token", problem, f"Write another word for one of them, such as {free_token(stem(token), taken)}"
            )
    return token


def check_draft(concepts: list[DraftConcept]) -> None:
    """Refuses concepts that no sequence file can hold, by reading one made of them; writes nothing of the user's.

    Args:
        concepts: at least one.

    Raises:
        UserError: listing every fault, as `Sequence.read` says it.
    """
    with TemporaryDirectory() as folder:
        trial = Path(folder) / "sequence.yaml"
        trial.write_text(sequence_text(concepts, "trial", None), "utf-8")
        try:
            Sequence.read(trial)
        except UserError as error:
            found = error.problems if isinstance(error, SeveralUserErrors) else [error]
            told = [UserError(_place(each.where, trial, concepts), each.problem, each.remedy) for each in found]
            raise (told[0] if len(told) == 1 else SeveralUserErrors(told)) from error


def _place(where: str, trial: Path, concepts: list[DraftConcept]) -> str:
    """Returns where a fault of a trial file lies in what the user gave."""
    place = where.removeprefix(f"{trial}: ")
    found = re.match(r"concepts\[(\d+)\]\.", place)
    return f"{concepts[int(found[1])].images}: {place[found.end() :]}" if found else place
