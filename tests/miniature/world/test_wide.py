"""The wide world: what its captions may say, and what they say of a given picture."""

import random
from dataclasses import replace

import numpy
import pytest

from cns_lightning.miniature.architecture import PROMPT_LENGTH, RARE_WORDS
from cns_lightning.miniature.world import sampling
from cns_lightning.miniature.world.props import PROP_DRAWERS
from cns_lightning.miniature.world.vocabulary import FREE_COLOURS, PROPS, WIDE_STYLES, Picture, Thing
from cns_lightning.miniature.world.wide import sample_wide_picture, wide_caption, wide_words
from cns_lightning.miniature.world.wide_styles import WIDE_STYLE_FILTERS

LIME, WHITE, NAVY, GOLD = (FREE_COLOURS[name] for name in ("lime", "white", "navy", "gold"))
BIRD = Thing("bird", LIME, "half", WHITE, ("crown",))


def test_captions_fit_a_prompt_and_use_no_other_words() -> None:
    numbers, known = random.Random(0), {*sampling.words(), *wide_words()}
    captions = [sample_wide_picture(numbers)[1].split() for _ in range(2000)]
    assert max(map(len, captions)) <= PROMPT_LENGTH - 2
    assert {word for caption in captions for word in caption} <= known
    assert not known & set(RARE_WORDS)


def test_everything_that_can_be_drawn_is_drawn_and_named() -> None:
    numbers = random.Random(1)
    said = {word for _ in range(4000) for word in sample_wide_picture(numbers)[1].split()}
    assert set(wide_words()) <= said
    assert set(PROPS) == set(PROP_DRAWERS)
    assert set(WIDE_STYLES) == set(WIDE_STYLE_FILTERS)


def test_a_caption_that_leaves_nothing_out_says_every_part() -> None:
    picture = Picture("plain", "tiled", (BIRD,), None, 3, (("crystals", GOLD, WHITE),), (NAVY, WHITE))
    text = wide_caption(picture, random.Random(2), saying=1.0)
    assert text.startswith("a lime bird with one white half wearing a crown in ")
    assert text.endswith("plain scene with gold crystals in navy tiled style")
    assert wide_caption(picture, random.Random(2), saying=0.0) == "a bird in tiled style"


def test_odd_proportions_are_drawn_and_said() -> None:
    tall = replace(BIRD, stretch=1.5)
    assert wide_caption(Picture("sea", "photo", (tall,)), random.Random(0), saying=1.0).count("a tall lime bird") == 1
    across, down = [], []
    for bird in (BIRD, tall):
        seen = numpy.asarray(sampling.render(Picture("plain", "photo", (bird,)))).astype(int)
        bare = numpy.asarray(sampling.render(Picture("plain", "photo", ())))
        covered = numpy.abs(seen - bare).max(-1) > 40
        across.append(covered.any(0).sum())
        down.append(covered.any(1).sum())
    assert across[1] < 0.9 * across[0]
    assert down[1] > 1.1 * down[0]


@pytest.mark.parametrize("style", WIDE_STYLES)
def test_a_picture_is_rendered_the_same_every_time(style: str) -> None:
    picture = Picture("sea", style, (BIRD,), None, 3, (("planets", GOLD, WHITE),), (NAVY, WHITE))
    pixels = numpy.asarray(sampling.render(picture))
    assert numpy.array_equal(pixels, numpy.asarray(sampling.render(picture)))
    plain = Picture("sea", "photo", (BIRD,), None, 3)
    assert numpy.abs(pixels.astype(int) - numpy.asarray(sampling.render(plain))).mean() > 10


@pytest.mark.parametrize("name", PROPS)
def test_a_prop_is_seen(name: str) -> None:
    bare, with_prop = Picture("sea", "photo", ()), Picture("sea", "photo", (), props=((name, NAVY, GOLD),))
    change = numpy.asarray(sampling.render(with_prop)).astype(int) - numpy.asarray(sampling.render(bare))
    assert (numpy.abs(change).max(-1) > 20).mean() > 0.01
