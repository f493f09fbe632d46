"""The names and records of the miniature picture world."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]

KINDS = (
    "cat", "dog", "bird", "fish", "rabbit", "ball", "box", "cup", "car", "tower", "flower", "star", "lamp", "boat",
)  # fmt: skip
ANIMALS = ("cat", "dog", "bird", "fish", "rabbit")
OBJECTS = tuple(kind for kind in KINDS if kind not in ANIMALS)
COLOURS: dict[str, RGB] = {
    "red": (218, 42, 42),
    "orange": (245, 138, 32),
    "yellow": (250, 220, 60),
    "green": (52, 158, 70),
    "blue": (45, 90, 215),
    "purple": (132, 60, 178),
    "pink": (250, 145, 192),
    "brown": (125, 78, 44),
    "white": (244, 244, 244),
    "black": (36, 34, 42),
}
PATTERNS = ("plain", "striped", "dotted")
SCENES = ("meadow", "beach", "night", "city", "snow", "desert", "room", "sea")
# Nothing but the things: where the denoiser learns shapes, which a scene's chances would drown.
PLAIN_SCENE = "plain"
STYLES = ("photo", "sketch", "pixel", "poster")

FREE_COLOURS: dict[str, RGB] = {
    **COLOURS,
    "grey": (135, 135, 140),
    "teal": (0, 128, 128),
    "cyan": (70, 215, 230),
    "navy": (20, 30, 95),
    "lime": (165, 230, 50),
    "olive": (125, 125, 30),
    "maroon": (115, 15, 40),
    "magenta": (220, 30, 160),
    "lavender": (195, 175, 240),
    "beige": (230, 212, 175),
    "gold": (205, 160, 30),
    "coral": (250, 115, 90),
    "mint": (155, 235, 185),
    "indigo": (75, 40, 140),
}
FREE_PATTERNS = (*PATTERNS, "checked", "zigzag", "half", "starred", "ringed")
FREE_STYLES = ("sepia", "inverted", "shifted", "tinted", "vignette", "grainy", "faded")
PROPS = (
    "mushrooms", "crystals", "lollipops", "planets", "corals", "bubbles", "lights", "icicles", "craters",
)  # fmt: skip
WIDE_STYLES = ("duotone", "outlined", "tiled", "hatched", "checkered", "glowing")
TRAITS = ("horns", "hat", "scarf", "glasses", "big ears", "pointed ears", "long tail", "wings", "crown")


@dataclass(frozen=True)
class Thing:
    """One animal or object of a picture, its place and size in fractions of the picture.

    Attributes:
        size: side of the square in which it is drawn.
        stretch: height over width, at the same area; it stands where it would stand unstretched.
    """

    kind: str
    colour: RGB
    pattern: str
    pattern_colour: RGB
    traits: tuple[str, ...] = ()
    x: float = 0.5
    y: float = 0.6
    size: float = 0.6
    flip: bool = False
    stretch: float = 1.0


@dataclass(frozen=True)
class Picture:
    """A whole picture: the scene, the style and the things from left to right.

    Attributes:
        props: name and two colours of what else stands in the scene; only in the wide world.
        inks: dark and light colour of a style of the wide world; None for all other styles.
    """

    scene: str
    style: str
    things: tuple[Thing, ...]
    palette: tuple[RGB, ...] | None = None
    seed: int = 0
    props: tuple[tuple[str, RGB, RGB], ...] = ()
    inks: tuple[RGB, RGB] | None = None


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """Blend two colours, `share` being the part of the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))  # type: ignore[return-value]


def luminance(colour: RGB) -> float:
    """Returns the perceived brightness of a colour, 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def distance(first: RGB, second: RGB) -> float:
    """Returns the weighted distance between two colours, close to what the eye sees."""
    mean_red = (first[0] + second[0]) / 2
    red, green, blue = (a - b for a, b in zip(first, second, strict=True))
    return ((2 + mean_red / 256) * red**2 + 4 * green**2 + (2 + (255 - mean_red) / 256) * blue**2) ** 0.5


def nearest_colour(colour: RGB, names: dict[str, RGB] | None = None) -> str:
    """Names the colour of `names` (by default the free colours) nearest to `colour`."""
    names = FREE_COLOURS if names is None else names
    return min(names, key=lambda name: distance(colour, names[name]))
