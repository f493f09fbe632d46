"""The wide world: what the base model learns of colours, patterns, accessories, palettes, props and inks.

Half way between the base world, whose captions say everything, and the free world, whose colours have no names: a
personal concept is a combination of parts like these that no caption pins down.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from cns_lightning.miniature.world.captions import (
    PATTERN_PHRASES,
    STYLE_PREFIXES,
    WORN,
    place_phrase,
    with_article,
)
from cns_lightning.miniature.world.sampling import count_things, free_palette, jittered, place_things, random_colour
from cns_lightning.miniature.world.vocabulary import (
    COLOURS,
    FREE_COLOURS,
    FREE_PATTERNS,
    KINDS,
    PLAIN_SCENE,
    PROPS,
    RGB,
    SCENES,
    STYLES,
    TRAITS,
    WIDE_STYLES,
    Picture,
    Thing,
    distance,
    luminance,
    mix,
    nearest_colour,
)

LONGEST_CAPTION = 22
"""Words of a caption: what a prompt of 24 tokens holds."""
SAYING = 0.85
"""How often a caption says a part that it could leave out."""
STRETCHES = (0.65, 0.75, 1.3, 1.5)
"""Odd proportions, height over width; what lies beyond 1 has the words of `proportion`."""
WIDE_GRAMMAR_WORDS = "wearing one half sky ground tall wide".split()
FREE_TONES = ("sepia", "inverted", "vignette", "faded")
"""Colour changes of the free world that a caption can say."""


def _named_colour(random: Random) -> RGB:
    """Draws a colour near one with a name, or any colour."""
    if random.random() < 0.25:
        return random_colour(random)
    names = COLOURS if random.random() < 0.5 else FREE_COLOURS
    return jittered(names[random.choice(list(names))], random)


def _second_colour(colour: RGB, random: Random) -> RGB:
    """Draws a second colour far from the first."""
    while True:
        second = _named_colour(random)
        if distance(second, colour) > 190:
            return second


def _thing(kind: str, place: tuple[float, float, float], alone: bool, random: Random) -> Thing:
    """Draws a thing with a pattern and accessories, fewer where two share the picture."""
    colour, (x, y, size) = _named_colour(random), place
    pattern = random.choice(FREE_PATTERNS) if random.random() < 0.55 else "plain"
    shares = (0.35, 0.35, 0.25, 0.05) if alone else (0.6, 0.35, 0.05, 0.0)
    traits = tuple(random.sample(TRAITS, random.choices((0, 1, 2, 3), shares)[0]))
    stretch = random.choice(STRETCHES) * random.uniform(0.94, 1.06) if random.random() < 0.3 else 1.0
    return Thing(kind, colour, pattern, _second_colour(colour, random), traits, x, y, size, stretch=stretch)


def _inks(random: Random) -> tuple[RGB, RGB]:
    """Draws a dark and a light colour."""
    dark = mix(_named_colour(random), (20, 0, 50), 0.5)
    while True:
        light = mix(_named_colour(random), (255, 250, 225), 0.4)
        if luminance(light) - luminance(dark) > 90:
            return dark, light


def sample_wide_picture(random: Random) -> tuple[Picture, str]:
    """Samples a picture of the wide world and its caption."""
    kinds = random.choices(KINDS, k=count_things(random))
    places = place_things(len(kinds), random)
    things = [_thing(kind, place, len(kinds) == 1, random) for kind, place in zip(kinds, places, strict=True)]
    palette = free_palette(random) if random.random() < 0.35 else None
    scene = random.choice((*SCENES, PLAIN_SCENE, PLAIN_SCENE) if palette else SCENES)
    props: tuple[tuple[str, RGB, RGB], ...] = ()
    if random.random() < (0.75 if not things or scene == PLAIN_SCENE else 0.25):
        names = random.sample(PROPS, random.choice((1, 1, 2)))
        props = tuple((name, colour := _named_colour(random), _second_colour(colour, random)) for name in names)
    drawn, inks = random.random(), None
    if drawn < 0.25:
        style, inks = random.choice(WIDE_STYLES), _inks(random)
    elif drawn < 0.33:
        style = random.choice(FREE_TONES)
    else:
        style = random.choices(STYLES, (0.7, 0.12, 0.06, 0.12))[0]
    picture = Picture(scene, style, tuple(things), palette, random.getrandbits(31), props, inks)
    return picture, wide_caption(picture, random)


def sample_picture_of_parts(random: Random) -> tuple[Picture, str]:
    """Samples a picture of one large thing with a pattern and accessories in an ordinary place, and its caption.

    What the wide world shows small, and seldom: a crown, a scarf, stars. From it alone, 16,000 batches of 32 with eight
    such pictures in a hundred, the denoiser learned to put confetti where a crown belongs.
    """
    (place,) = place_things(1, random)
    thing = _thing(random.choice(KINDS), place, True, random)
    if not thing.traits or random.random() < 0.3:
        thing = replace(thing, traits=tuple(random.sample(TRAITS, random.choice((1, 2, 2, 3)))))
    scene = PLAIN_SCENE if random.random() < 0.5 else random.choice(SCENES)
    picture = Picture(scene, "photo", (thing,), None, random.getrandbits(31))
    return picture, wide_caption(picture, random)


def proportion(thing: Thing) -> str:
    """Returns the word for odd proportions, empty for ordinary ones."""
    return "" if thing.stretch == 1 else "tall" if thing.stretch > 1 else "wide"


def _describe(thing: Thing, random: Random, saying: float) -> str:
    """Describes a thing, saying each of its parts with a probability."""
    text = thing.kind
    if random.random() < saying:
        text = f"{nearest_colour(thing.colour)} {text}"
    if thing.stretch != 1 and random.random() < saying:
        text = f"{proportion(thing)} {text}"
    extras = [each if each[-1] == "s" else with_article(each) for each in thing.traits
              if each not in WORN and random.random() < saying]  # fmt: skip
    if thing.pattern != "plain" and random.random() < saying:
        second = nearest_colour(thing.pattern_colour) if random.random() < saying else ""
        if thing.pattern == "half":
            extras.insert(0, f"one {second} half".replace("  ", " "))
        elif second and random.random() < 0.6:
            extras.insert(0, f"{second} {PATTERN_PHRASES[thing.pattern]}")
        else:
            text = f"{thing.pattern} {text}"
    worn = [each if each == "glasses" else with_article(each) for each in thing.traits
            if each in WORN and random.random() < saying]  # fmt: skip
    text = with_article(text)
    if extras:
        text += f" with {' and '.join(extras)}"
    if worn:
        text += f" wearing {' and '.join(worn)}"
    return text


def _place(picture: Picture, random: Random, saying: float) -> str:
    """Says where the things are, and what else is strange about the place."""
    parts = [place_phrase(picture.scene, random)] if random.random() < saying else []
    extras = []
    if picture.palette is not None and random.random() < saying:
        sky, ground = nearest_colour(picture.palette[0]), nearest_colour(picture.palette[2])
        extras.append(random.choice((f"{with_article(sky)} sky", f"{ground} ground",
                                     f"{with_article(sky)} sky and {ground} ground")))  # fmt: skip
    for name, colour, _ in picture.props:
        if random.random() < saying:
            extras.append(f"{nearest_colour(colour)} {name}" if random.random() < saying else name)
    if extras:
        parts.append(f"with {' and '.join(extras)}")
    return " ".join(parts)


def _style(picture: Picture, random: Random, saying: float) -> tuple[str, str]:
    """Returns what stands before and what stands behind the content to say the style."""
    if picture.inks is None:
        if picture.style in STYLE_PREFIXES and random.random() < 0.65:
            return f"{random.choice(STYLE_PREFIXES[picture.style])} ", ""
        return "", "" if picture.style == "photo" else f" in {picture.style} style"
    said = say_inks(picture.style, picture.inks) if random.random() < saying else picture.style
    return "", f" in {said} style"


def say_inks(style: str, inks: tuple[RGB, RGB]) -> str:
    """Names a style with the inks that are seen most in it."""
    dark, light = (nearest_colour(ink) for ink in inks)
    named = {"duotone": f"{dark} and {light}", "outlined": f"{light} and {dark}", "checkered": f"{dark} and {light}",
             "tiled": dark, "hatched": light, "glowing": light}[style]  # fmt: skip
    return f"{named} {style}"


def describe(thing: Thing) -> str:
    """Says everything that captions can say of a thing, without an article."""
    return _describe(thing, Random(0), 1.0).partition(" ")[2]


def describe_place(scene: str, palette: tuple[RGB, ...], prop: str) -> str:
    """Says everything that captions can say of a scene with a palette and with props in its first accent."""
    sky, ground, colour = (nearest_colour(palette[number]) for number in (0, 2, 4))
    return f"{scene} scene with {with_article(sky)} sky and {ground} ground and {colour} {prop}"


def wide_caption(picture: Picture, random: Random, saying: float = SAYING) -> str:
    """Says what a wide picture shows, in no more words than a prompt holds, leaving parts out now and then.

    Args:
        picture: record of the picture.
        random: source of what is left out and how the rest is put.
        saying: probability with which each part is said, lowered until the caption is short enough.
    """
    while True:
        names = [_describe(thing, random, saying) for thing in picture.things]
        joined = random.choice((" and ", " next to ")) if len(names) == 2 else " and "
        before, behind = _style(picture, random, saying)
        text = f"{before}{joined.join(names) or 'a scene'} {_place(picture, random, saying)}".strip() + behind
        if len(text.split()) <= LONGEST_CAPTION:
            return text
        saying *= 0.9


def wide_words() -> list[str]:
    """Lists the words that captions of the wide world may use beside those of the base world, sorted."""
    phrases = {*FREE_COLOURS, *FREE_PATTERNS, *PATTERN_PHRASES.values(), *TRAITS, *PROPS, *WIDE_STYLES, *FREE_TONES}
    return sorted({word for phrase in phrases for word in phrase.split()} | set(WIDE_GRAMMAR_WORDS))
