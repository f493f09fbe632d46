"""The test prompts of a set of personal concepts, in words of the base vocabulary and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from cns_lightning.miniature.world.captions import SCENE_PHRASES, with_article
from cns_lightning.miniature.world.vocabulary import COLOURS, KINDS, SCENES


@dataclass(frozen=True)
class Entry:
    """One concept of a sequence as its configuration names it, and the scenes of the base world in its pictures."""

    token: str
    class_word: str
    kind: str
    images: str
    description: str
    scenes: tuple[str, ...] = ()

    @property
    def phrase(self) -> str:
        """Returns the noun phrase of an animal or object concept."""
        return f"a {self.token} {self.class_word}"


def _place(random: Random) -> str:
    """Chooses a base scene phrase."""
    return SCENE_PHRASES[random.choice(SCENES)][0]


def _coloured(random: Random, without: str = "") -> str:
    """Chooses a coloured base thing other than `without`."""
    kind = random.choice([kind for kind in KINDS if kind != without])
    return with_article(f"{random.choice(list(COLOURS))} {kind}")


def _single_instance(entry: Entry, random: Random) -> list[str]:
    """Writes five prompts of an animal or object, in scenes that its pictures do not show."""
    places = [SCENE_PHRASES[scene][0] for scene in SCENES if scene not in entry.scenes]
    prompts = [f"a photo of {entry.phrase} {place}" for place in random.sample(places, 3)]
    prompts.append(f"a photo of {entry.phrase} next to {_coloured(random, entry.class_word)}")
    prompts.append(f"{entry.phrase} {random.choice(places)} in {random.choice(('sketch', 'pixel', 'poster'))} style")
    return prompts


def _single_scene(entry: Entry, random: Random) -> list[str]:
    """Writes five prompts of a scene."""
    kinds = random.sample(KINDS, 2)
    return [
        f"a photo of a {entry.token} scene",
        f"{with_article(kinds[0])} in the {entry.token} scene",
        f"a photo of {_coloured(random)} in the {entry.token} scene",
        f"{_coloured(random)} in the {entry.token} scene",
        f"a photo of {with_article(kinds[1])} next to {_coloured(random, kinds[1])} in the {entry.token} scene",
    ]


def _single_style(entry: Entry, random: Random) -> list[str]:
    """Writes five prompts of a style."""
    kinds = random.sample(KINDS, 2)
    return [
        f"{_coloured(random)} in {entry.token} style",
        f"{with_article(kinds[0])} in {entry.token} style",
        f"{_coloured(random)} {_place(random)} in {entry.token} style",
        f"{with_article(kinds[1])} next to {_coloured(random, kinds[1])} in {entry.token} style",
        f"a scene {_place(random)} in {entry.token} style",
    ]


def _endings(entries: Sequence[Entry]) -> list[str]:
    """Returns the phrases with which scenes and styles close a prompt."""
    scenes = [f"in the {entry.token} scene" for entry in entries if entry.kind == "scene"]
    return scenes + [f"in {entry.token} style" for entry in entries if entry.kind == "style"]


def write_prompts(entries: Sequence[Entry], random: Random) -> dict[str, list[str]]:
    """Writes the prompts with one, two and three concepts of a set."""
    writers = {"scene": _single_scene, "style": _single_style}
    single = [prompt for entry in entries for prompt in writers.get(entry.kind, _single_instance)(entry, random)]
    instances = [entry for entry in entries if entry.kind in ("animal", "object")]
    pairs = [(first, second) for i, first in enumerate(instances) for second in instances[i + 1 :]]
    random.shuffle(pairs)
    endings = _endings(entries)
    random.shuffle(endings)
    ending_cycle = (endings * 3)[:5]
    double = [
        f"{pairs[0][0].phrase} next to {pairs[0][1].phrase}",
        f"a photo of {pairs[1][0].phrase} and {pairs[1][1].phrase} {_place(random)}",
    ]
    double += [
        f"{entry.phrase} {end}" for entry, end in zip(random.sample(instances, 2), ending_cycle[:2], strict=True)
    ]
    triple = [
        f"{pair[0].phrase} {relation} {pair[1].phrase} {end}"
        for pair, relation, end in zip(pairs[2:5], ("next to", "and", "next to"), ending_cycle[2:5], strict=True)
    ]
    return {"single": single, "double": double, "triple": triple}
