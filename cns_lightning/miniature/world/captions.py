"""The captions of the base world and of the free world."""

from __future__ import annotations

from random import Random

from cns_lightning.miniature.world.vocabulary import (
    COLOURS,
    FREE_COLOURS,
    FREE_PATTERNS,
    FREE_STYLES,
    KINDS,
    PATTERNS,
    SCENES,
    STYLES,
    TRAITS,
    Picture,
    Thing,
    nearest_colour,
)

OMISSION = 0.25
SCENE_PHRASES: dict[str, tuple[str, ...]] = {
    "meadow": ("in the meadow", "on the grass"),
    "beach": ("on the beach", "at the beach"),
    "night": ("at night", "in the night"),
    "city": ("in the city", "on the road"),
    "snow": ("in the snow", "on the snow"),
    "desert": ("in the desert", "in the sand of the desert"),
    "room": ("in the room", "in a room"),
    "sea": ("in the sea", "on the sea"),
    "plain": ("in the plain scene", "in a plain scene"),
}
STYLE_PREFIXES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of", "a photo of", "a picture of"),
    "sketch": ("a sketch of", "a drawing of"),
    "pixel": ("pixel art of", "a pixel picture of"),
    "poster": ("a poster of", "a painting of"),
}
PATTERN_PHRASES = {
    "striped": "stripes",
    "dotted": "dots",
    "checked": "checks",
    "zigzag": "zigzags",
    "starred": "stars",
    "ringed": "rings",
}
WORN = ("hat", "scarf", "glasses", "crown")
GRAMMAR_WORDS = "a an the of in on at and next to with left right scene style picture plain".split()
FREE_GRAMMAR_WORDS = "wearing one half sky ground under".split()


def with_article(words: str) -> str:
    """Puts a or an before words."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _describe(thing: Thing, random: Random) -> str:
    """Describes a base thing, leaving attributes out now and then."""
    words = [thing.kind]
    if random.random() >= OMISSION:
        words.insert(0, nearest_colour(thing.colour, COLOURS))
    if thing.pattern != "plain" and random.random() >= OMISSION / 2:
        words.insert(0, thing.pattern)
    elif thing.pattern == "plain" and random.random() < 0.08:
        words.insert(0, "plain")
    return with_article(" ".join(words))


def _content(picture: Picture, random: Random) -> str:
    """Describes the things from left to right.

    Said in any order, two things came out as two mixtures of both.
    """
    names = [_describe(thing, random) for thing in picture.things]
    if len(names) == 2:
        relation = random.choice(("and", "and", "next to", "next to", "with", "left of", "right of"))
        if relation == "right of":
            names.reverse()
        return f"{names[0]} {relation} {names[1]}"
    return " and ".join(names)


def place_phrase(scene: str, random: Random) -> str:
    """Says where the things are."""
    if random.random() < 0.25:
        return random.choice((f"in the {scene} scene", f"in a {scene} scene"))
    return SCENE_PHRASES[scene][0 if random.random() < 0.7 else 1]


def caption(picture: Picture, random: Random) -> str:
    """Says what a base picture shows, leaving colours, scene or style out now and then."""
    name_scene = random.random() >= OMISSION
    name_style = picture.style != "photo" or random.random() < 0.55
    if picture.things:
        content = _content(picture, random)
        if name_scene:
            content = f"{content} {place_phrase(picture.scene, random)}"
    elif not name_scene:
        content = "a scene"
    elif random.random() < 0.5:
        content = f"a {picture.scene} scene"
    else:
        content = f"a scene {SCENE_PHRASES[picture.scene][0]}"
    if not name_style:
        return content
    if random.random() < 0.35:
        return f"{content} in {picture.style} style"
    return f"{random.choice(STYLE_PREFIXES[picture.style])} {content}"


def words() -> list[str]:
    """Lists every word of base captions, sorted."""
    found = {*KINDS, *COLOURS, *PATTERNS, *SCENES, *STYLES, *GRAMMAR_WORDS}
    for phrases in (*SCENE_PHRASES.values(), *STYLE_PREFIXES.values()):
        found.update(" ".join(phrases).split())
    return sorted(found)


def free_words() -> list[str]:
    """Lists the words that only free captions use, sorted."""
    found = {*FREE_COLOURS, *FREE_STYLES, *FREE_PATTERNS, *PATTERN_PHRASES.values(), *FREE_GRAMMAR_WORDS}
    found.update(" ".join(TRAITS).split())
    return sorted(found - set(words()))


def _describe_freely(thing: Thing) -> str:
    """Describes a free thing with all its attributes."""
    text = with_article(f"{nearest_colour(thing.colour)} {thing.kind}")
    second = nearest_colour(thing.pattern_colour)
    extras = [trait if trait[-1] == "s" else with_article(trait) for trait in thing.traits if trait not in WORN]
    if thing.pattern == "half":
        extras.insert(0, f"one {second} half")
    elif thing.pattern != "plain":
        extras.insert(0, f"{second} {PATTERN_PHRASES[thing.pattern]}")
    if extras:
        text += " with " + " and ".join(extras)
    worn = [trait if trait == "glasses" else with_article(trait) for trait in thing.traits if trait in WORN]
    if worn:
        text += " wearing " + " and ".join(worn)
    return text


def free_caption(picture: Picture, random: Random) -> str:
    """Says in detail what a free picture shows."""
    relation = random.choice((" and ", " next to ")) if len(picture.things) == 2 else " and "
    content = relation.join(_describe_freely(thing) for thing in picture.things)
    if content:
        content += f" {place_phrase(picture.scene, random)}"
    else:
        content = f"a {picture.scene} scene"
    if picture.palette is not None:
        sky, ground = nearest_colour(picture.palette[0]), nearest_colour(picture.palette[2])
        content += f" with {with_article(sky)} sky and {ground} ground"
    if picture.style in STYLE_PREFIXES and random.random() < 0.6:
        return f"{random.choice(STYLE_PREFIXES[picture.style])} {content}"
    return f"{content} in {picture.style} style"
