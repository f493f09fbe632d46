"""The miniature picture world: sampling, rendering and captioning small pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import partial
from random import Random

from PIL import Image

from cns_lightning.miniature.world.captions import caption, free_caption, free_words, words
from cns_lightning.miniature.world.drawing import CANVAS, paste_thing
from cns_lightning.miniature.world.props import draw_prop
from cns_lightning.miniature.world.scenery import PALETTES, brightness, paint_scene
from cns_lightning.miniature.world.styles import FLAT_STYLES, apply_style
from cns_lightning.miniature.world.traits import draw_thing
from cns_lightning.miniature.world.vocabulary import (
    ANIMALS,
    COLOURS,
    FREE_COLOURS,
    FREE_PATTERNS,
    FREE_STYLES,
    KINDS,
    OBJECTS,
    PATTERNS,
    PLAIN_SCENE,
    RGB,
    SCENES,
    STYLES,
    TRAITS,
    Picture,
    Thing,
    distance,
    luminance,
    mix,
)
from cns_lightning.miniature.world.wide_styles import apply_wide_style

__all__ = [
    "ANIMALS",
    "COLOURS",
    "FREE_COLOURS",
    "FREE_PATTERNS",
    "FREE_STYLES",
    "KINDS",
    "OBJECTS",
    "PATTERNS",
    "RGB",
    "SCENES",
    "STYLES",
    "TRAITS",
    "Picture",
    "Thing",
    "caption",
    "free_words",
    "paint_things",
    "place_things",
    "random_colour",
    "render",
    "sample_free_picture",
    "sample_picture",
    "words",
]


def paint_things(
    canvas: Image.Image, things: Sequence[Thing], backdrop: float, flat: bool = False, outline: int = 2
) -> None:
    """Paints things on a canvas, the ones standing lower in front."""
    for thing in sorted(things, key=lambda thing: thing.y + thing.size / 2):
        draw = partial(draw_thing, kind=thing.kind, traits=thing.traits)
        paste_thing(canvas, thing, draw, backdrop, flat, outline)


def render(picture: Picture, size: int = 64) -> Image.Image:
    """Renders a picture, the same one every time."""
    canvas = paint_scene(picture.scene, picture.palette, picture.seed)
    for name, colour, second in picture.props:
        draw_prop(canvas, name, colour, second, picture.seed)
    backdrop = brightness(PALETTES[picture.scene] if picture.palette is None else picture.palette)
    outline = 3 if picture.style in ("poster", "pixel") else 2
    paint_things(canvas, picture.things, backdrop, picture.style in FLAT_STYLES or picture.inks is not None, outline)
    if picture.inks is None:
        canvas = apply_style(canvas, picture.style, picture.seed)
    else:
        canvas = apply_wide_style(canvas, picture.style, picture.inks, picture.seed)
    if CANVAS % size == 0:
        return canvas.reduce(CANVAS // size) if size < CANVAS else canvas
    return canvas.resize((size, size), Image.Resampling.LANCZOS)


def jittered(colour: RGB, random: Random) -> RGB:
    """Moves a colour by up to eight steps a channel."""
    red, green, blue = (min(255, max(0, channel + random.randint(-8, 8))) for channel in colour)
    return red, green, blue


def _pattern_colour(colour: RGB, random: Random) -> RGB:
    """Chooses white or a darker or lighter tone of a base body for its pattern."""
    brightness_ = luminance(colour)
    if brightness_ < 60:
        return mix(colour, (255, 255, 255), random.uniform(0.72, 0.95))
    if brightness_ > 185:
        return mix(colour, (30, 20, 40), random.uniform(0.4, 0.55))
    if random.random() < 0.6:
        return jittered((246, 246, 246), random)
    return mix(colour, (20, 15, 35), random.uniform(0.55, 0.7))


def place_things(count: int, random: Random) -> list[tuple[float, float, float]]:
    """Returns x, y and size for up to three things, from left to right and not hiding each other.

    Each number of things has its places, left with little play: from half a million pictures with things anywhere the
    denoiser learned scenes and colours but no shape.
    """
    places = []
    for index in range(count):
        if count == 1:
            middle, size = 0.5 + random.uniform(-0.05, 0.05), random.uniform(0.6, 0.68)
        elif count == 2:
            middle, size = (0.25, 0.75)[index] + random.uniform(-0.02, 0.02), random.uniform(0.44, 0.48)
        else:
            middle, size = (0.18, 0.5, 0.82)[index] + random.uniform(-0.01, 0.01), random.uniform(0.34, 0.37)
        bottom = random.uniform(0.61, 0.65) if (count, index) == (3, 1) else random.uniform(0.9, 0.95)
        places.append((middle, bottom - size / 2, size))
    return places


def count_things(random: Random) -> int:
    """Chooses how many things a picture has; two are harder to learn than one."""
    return random.choices((0, 1, 2, 3), (0.06, 0.46, 0.4, 0.08))[0]


def sample_picture(random: Random, plain: bool = False) -> tuple[Picture, str]:
    """Samples a picture of the base world and its caption, on wish one with things and the plain scene."""
    count = count_things(random)
    kinds = random.choices(KINDS, k=max(1, count) if plain else count)
    things = []
    for kind, (x, y, size) in zip(kinds, place_things(len(kinds), random), strict=True):
        colour = jittered(COLOURS[random.choice(list(COLOURS))], random)
        pattern = random.choices(PATTERNS, (0.6, 0.2, 0.2))[0]
        second = _pattern_colour(colour, random)
        things.append(Thing(kind, colour, pattern, second, (), x, y, size))
    blocks = 0.0 if len(things) == 3 else 0.12  # three things are too small for coarse blocks
    style = random.choices(STYLES, (0.64, 0.12, blocks, 0.12))[0]
    picture = Picture(
        PLAIN_SCENE if plain else random.choice(SCENES), style, tuple(things), None, random.getrandbits(31)
    )
    return picture, caption(picture, random)


def random_colour(random: Random, apart_from: RGB | None = None) -> RGB:
    """Draws any colour, on wish one far from another."""
    while True:
        red, green, blue = colorsys.hsv_to_rgb(random.random(), random.random() ** 0.5, random.uniform(0.1, 1) ** 0.7)
        colour = (round(red * 255), round(green * 255), round(blue * 255))
        if apart_from is None or distance(colour, apart_from) > 190:
            return colour


def free_palette(random: Random) -> tuple[RGB, ...]:
    """Draws six scene colours, shades of three random ones."""
    sky, ground = random_colour(random), random_colour(random)
    accent = random_colour(random, ground)
    return (
        sky,
        mix(sky, random_colour(random), 0.35),
        ground,
        mix(ground, (20, 15, 40), 0.25),
        accent,
        random_colour(random, sky),
    )


def sample_free_picture(random: Random) -> tuple[Picture, str]:
    """Samples a picture of the far more varied free world and its detailed caption."""
    kinds = random.choices(KINDS, k=count_things(random))
    things = []
    for kind, (x, y, size) in zip(kinds, place_things(len(kinds), random), strict=True):
        colour = random_colour(random)
        second = random_colour(random, colour)
        traits = random.sample(TRAITS, random.choices((0, 1, 2, 3), (0.3, 0.3, 0.3, 0.1))[0])
        if len(kinds) == 1:
            x, size = random.uniform(0.34, 0.66), random.uniform(0.4, 0.75)
            y = random.uniform(0.85, 0.97) - size / 2
        pattern = random.choice(FREE_PATTERNS)
        things.append(Thing(kind, colour, pattern, second, tuple(traits), x, y, size, random.random() < 0.5))
    style = random.choice(FREE_STYLES) if random.random() < 0.35 else random.choices(STYLES, (0.6, 0.14, 0.13, 0.13))[0]
    palette = free_palette(random) if random.random() < 0.6 else None
    picture = Picture(random.choice(SCENES), style, tuple(things), palette, random.getrandbits(31))
    return picture, free_caption(picture, random)
