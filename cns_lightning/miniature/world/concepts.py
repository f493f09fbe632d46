"""The generator of personal concepts: pictures and configurations of concept sequences.

Run `python -m cns_lightning.miniature.world.concepts --out configs/sequences --seed 0`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from PIL import Image

from cns_lightning.miniature.world.captions import SCENE_PHRASES, with_article
from cns_lightning.miniature.world.concept_prompts import Entry, write_prompts
from cns_lightning.miniature.world.concept_scenes import (
    CONCEPT_PALETTES,
    CONCEPT_SCENE_DRAWERS,
    paint_concept_scene,
    turned,
)
from cns_lightning.miniature.world.concept_styles import CONCEPT_STYLE_FILTERS, Inks, apply_concept_style
from cns_lightning.miniature.world.sampling import paint_things, place_things, random_colour, render
from cns_lightning.miniature.world.scenery import PALETTES, brightness, paint_scene
from cns_lightning.miniature.world.vocabulary import (
    ANIMALS,
    COLOURS,
    FREE_COLOURS,
    OBJECTS,
    RGB,
    SCENES,
    Picture,
    Thing,
    distance,
    luminance,
    mix,
    nearest_colour,
)
from cns_lightning.miniature.world.wide import describe, describe_place, say_inks

PICTURES = 5
COMPOSITIONS = (
    ("animal", "object", "animal", "style", "style", "animal", "object"),
    ("animal", "scene", "animal", "object", "style", "animal", "scene"),
    ("object", "animal", "scene", "object", "style", "animal", "object"),
)
ODD_COLOURS = {name: colour for name, colour in FREE_COLOURS.items() if name not in (*COLOURS, "grey")}
ODD_PATTERNS = ("checked", "zigzag", "half", "starred", "ringed")
NEAREST_SCENES = {
    "mushroom_forest": ("night", "mushrooms"), "candy_land": ("meadow", "lollipops"),
    "ringed_moon": ("desert", "planets"), "coral_reef": ("sea", "corals"), "crystal_cave": ("night", "crystals"),
}  # fmt: skip
"""The scene and the prop of the wide world that come nearest to the scene of a concept."""
NEAREST_STYLES = {
    "mosaic": "tiled", "halftone": "duotone", "neon": "glowing", "stitched": "hatched", "woven": "checkered",
}  # fmt: skip
"""The style of the wide world that comes nearest to the style of a concept."""
TOP_TRAITS = ("horns", "hat", "crown")
SIDE_TRAITS = {
    "animal": ("scarf", "glasses", "big ears", "pointed ears", "long tail", "wings"),
    "object": ("glasses", "big ears", "pointed ears", "long tail", "wings"),
}


@dataclass(frozen=True)
class Concept:
    """A concept with its folder name, class word, kind, pictures and the most that words can say of it.

    Attributes:
        captions: one caption for each picture of a scene or style: what it shows, with ``{token}`` for the concept.
            Animals and objects have none: no prompt that names one alone asks for a scene in which it is shown.
        scenes: scenes of the base world that the pictures show.
        thing: what the pictures of an animal or object show, at an arbitrary place; None for scenes and styles.
        turn: how far the colours of a scene are turned; None for all others.
        inks: dark and light colour of a style; None for all others.
    """

    name: str
    class_word: str
    kind: str
    pictures: tuple[Image.Image, ...]
    description: str
    captions: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    thing: Thing | None = None
    turn: float | None = None
    inks: Inks | None = None


class Deck:
    """Cards drawn without repetition, shuffled anew when they run out."""

    def __init__(self, cards: Sequence[str], random: Random) -> None:
        """Shuffles the cards."""
        self._cards = tuple(cards)
        self._random = random
        self._left: list[str] = []

    def draw(self, avoid: Sequence[str] = ()) -> str:
        """Draws the next card that is not to be avoided."""
        if not [card for card in self._left if card not in avoid]:
            self._left += self._random.sample(self._cards, len(self._cards))
        card = next((card for card in self._left if card not in avoid), self._left[0])
        self._left.remove(card)
        return card


@dataclass
class Decks:
    """The decks from which the concepts of all sets are drawn."""

    animal: Deck
    object: Deck
    scene: Deck
    style: Deck
    colour: Deck
    pattern: Deck
    top: Deck


def _shrunk(canvas: Image.Image) -> Image.Image:
    """Reduces a canvas to picture size."""
    return canvas.reduce(2)


def _base_things(count: int, random: Random) -> tuple[Thing, ...]:
    """Chooses plain base things in named colours."""
    kinds = random.sample((*ANIMALS, *OBJECTS), count)
    colours = random.sample(list(COLOURS.values()), count)
    return tuple(
        Thing(kind, colour, "plain", (255, 255, 255), (), x, y, size)
        for kind, colour, (x, y, size) in zip(kinds, colours, place_things(count, random), strict=True)
    )


def _named(things: Sequence[Thing]) -> str:
    """Returns base things in words, next to each other."""
    return " next to ".join(with_article(f"{nearest_colour(thing.colour)} {thing.kind}") for thing in things)


def _exact(name: str, looks: Random) -> RGB:
    """Chooses a colour that bears a name, as the nearest one, and is well away from what the name means."""
    while True:
        colour = random_colour(looks)
        if nearest_colour(colour) == name and distance(colour, FREE_COLOURS[name]) > 45:
            return colour


def _draw_instance(kind: str, decks: Decks, used: Sequence[str], random: Random) -> Concept:
    """Draws an animal or object that words cannot pin down: exact hues, accessories, odd proportions."""
    word = getattr(decks, kind).draw(used)
    colour_name = decks.colour.draw()
    named = ODD_COLOURS[colour_name]
    others = [
        other
        for other in FREE_COLOURS
        if distance(FREE_COLOURS[other], named) > 260 and abs(luminance(FREE_COLOURS[other]) - luminance(named)) > 45
    ]
    pattern, top = decks.pattern.draw(), decks.top.draw()
    side, second = random.choice(SIDE_TRAITS[kind]), random.choice(others)
    name = f"{colour_name}_{pattern}_{word}"
    looks = Random(f"looks of {name}")
    traits = (top, side) if looks.random() < 0.5 else (top, *looks.sample(SIDE_TRAITS[kind], 2))
    stretch = looks.choice((1.0, 1.0, looks.uniform(0.6, 0.75), looks.uniform(1.3, 1.55)))
    thing = Thing(word, _exact(colour_name, looks), pattern, _exact(second, looks), traits, stretch=stretch)
    scenes, pictures = random.sample(SCENES, PICTURES), []
    for scene in scenes:
        size = random.uniform(0.57, 0.69) * min(stretch, 1 / stretch) ** 0.25
        x, y = random.uniform(0.44, 0.56), random.uniform(0.91, 0.96) - size / 2
        view = replace(thing, x=x, y=y, size=size)
        pictures.append(render(Picture(scene, "photo", (view,), None, random.getrandbits(31))))
    return Concept(name, word, kind, tuple(pictures), describe(thing), scenes=tuple(scenes), thing=thing)


def paint_in_scene(name: str, turn: float, things: Sequence[Thing], seed: int) -> Image.Image:
    """Paints base things in a concept scene whose colours are turned."""
    canvas = paint_concept_scene(name, turn, seed)
    paint_things(canvas, things, brightness(tuple(turned(colour, turn) for colour in CONCEPT_PALETTES[name])))
    return _shrunk(canvas)


def paint_in_style(name: str, inks: Inks, scene: str, things: Sequence[Thing], seeds: tuple[int, int]) -> Image.Image:
    """Paints base things in a scene of the base world in a concept style; seeds of the scene and of the style."""
    canvas = paint_scene(scene, None, seeds[0])
    paint_things(canvas, things, brightness(PALETTES[scene]), flat=True, outline=3)
    return _shrunk(apply_concept_style(canvas, name, inks, seeds[1]))


def _draw_scene(decks: Decks, random: Random) -> Concept:
    """Draws a scene unknown to the base world, with a base thing in some of its views."""
    name, turn = decks.scene.draw(), random.uniform(-0.05, 0.05)
    filled = set(random.sample(range(PICTURES), random.choice((2, 3))))
    pictures, captions = [], []
    for index in range(PICTURES):
        seed = random.getrandbits(31)
        things = _base_things(1 if index in filled else 0, random)
        pictures.append(paint_in_scene(name, turn, things, seed))
        captions.append(f"a photo of {f'{_named(things)} in the' if things else 'a'} {{token}} scene")
    scene, prop = NEAREST_SCENES[name]
    words = describe_place(scene, tuple(turned(colour, turn) for colour in CONCEPT_PALETTES[name]), prop)
    return Concept(f"{name}_scene", "scene", "scene", tuple(pictures), words, tuple(captions), turn=turn)


def _draw_inks(random: Random) -> Inks:
    """Draws a dark and a light colour far from each other."""
    dark = mix(random_colour(random), (20, 0, 50), 0.6)
    light = mix(random_colour(random, dark), (255, 250, 225), 0.6)
    return dark, light


def _draw_style(decks: Decks, random: Random) -> Concept:
    """Draws a style unknown to the base world, shown on five base contents."""
    name, inks = decks.style.draw(), _draw_inks(random)
    scenes, pictures, captions = random.sample(SCENES, PICTURES), [], []
    for scene, count in zip(scenes, (1, 1, 2, 1, 0), strict=True):
        scene_seed = random.getrandbits(31)
        things = _base_things(count, random)
        seeds = scene_seed, random.getrandbits(31)
        pictures.append(paint_in_style(name, inks, scene, things, seeds))
        captions.append(f"{_named(things) or 'a scene'} {SCENE_PHRASES[scene][0]} in {{token}} style")
    words = f"{say_inks(NEAREST_STYLES[name], inks)} style"
    return Concept(f"{name}_style", "style", "style", tuple(pictures), words, tuple(captions), tuple(scenes), inks=inks)


def draw_sets(sets: int, seed: int) -> Iterator[list[Concept]]:
    """Draws the concepts of each set; the same seed draws the same ones."""
    random = Random(f"concepts {seed}")
    decks = Decks(
        *(
            Deck(cards, random)
            for cards in (
                ANIMALS,
                OBJECTS,
                tuple(CONCEPT_SCENE_DRAWERS),
                tuple(CONCEPT_STYLE_FILTERS),
                tuple(ODD_COLOURS),
                ODD_PATTERNS,
                TOP_TRAITS,
            )
        )
    )
    for number in range(sets):
        concepts: list[Concept] = []
        for kind in COMPOSITIONS[number % len(COMPOSITIONS)]:
            if kind == "scene":
                concepts.append(_draw_scene(decks, random))
            elif kind == "style":
                concepts.append(_draw_style(decks, random))
            else:
                used = [concept.class_word for concept in concepts]
                concepts.append(_draw_instance(kind, decks, used, random))
        yield concepts


def _configuration(name: str, entries: Sequence[Entry], prompts: dict[str, list[str]]) -> str:
    """Writes the configuration of a set as YAML."""
    lines = [f"name: {name}", "concepts:"]
    for entry in entries:
        lines += [
            f"  - token: {json.dumps(entry.token)}",
            f"    class_word: {entry.class_word}",
            f"    kind: {entry.kind}",
            f"    images: {entry.images}",
            f"    description: {entry.description}",
        ]
    lines.append("prompts:")
    for group, texts in prompts.items():
        lines += [f"  {group}:", *(f"    - {json.dumps(text)}" for text in texts)]
    return "\n".join(lines) + "\n"


def write_sets(out: Path, seed: int, sets: int = 3) -> None:
    """Writes the pictures, their captions and the configuration of every set."""
    for number, concepts in enumerate(draw_sets(sets, seed), start=1):
        folder = f"miniature_set{number}"
        entries = []
        for index, concept in enumerate(concepts, start=1):
            images = f"{folder}/{concept.name}"
            about = (concept.class_word, concept.kind, images, concept.description, concept.scenes)
            entries.append(Entry(f"<new{index}>", *about))
            place = out / images
            place.mkdir(parents=True, exist_ok=True)
            for view, picture in enumerate(concept.pictures):
                picture.save(place / f"{view}.png")
            for view, caption in enumerate(concept.captions):
                (place / f"{view}.txt").write_text(f"{caption}\n", encoding="utf-8")
        prompts = write_prompts(entries, Random(f"prompts {seed} {number}"))
        text = _configuration(f"miniature-set{number}", entries, prompts)
        (out / f"{folder}.yaml").write_text(text, encoding="utf-8")


def main() -> None:
    """Reads the command line and writes the sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the configurations and pictures")
    parser.add_argument("--seed", type=int, default=0, help="seed of all choices")
    parser.add_argument("--sets", type=int, default=3, help="number of sets")
    arguments = parser.parse_args()
    write_sets(arguments.out, arguments.seed, arguments.sets)


if __name__ == "__main__":
    main()
