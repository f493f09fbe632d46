"""Augmentation is a pure function, and knows which part of the result is real."""

import numpy
import torch
from PIL import Image

from cns_lightning.data.augmentation import CLOSE_UP, FAR_AWAY, Augmentation, augment, latent_valid_region

IMAGE = Image.fromarray(numpy.random.default_rng(1).integers(1, 256, (48, 64, 3), dtype=numpy.uint8))


def test_same_key_gives_the_same_variant_and_another_key_another() -> None:
    first, again, other = (augment(IMAGE, 32, Augmentation(), 0, "a", number) for number in (0, 0, 1))
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)


def test_flip_is_a_mirror_image() -> None:
    plain, flipped = (augment(IMAGE, 24, Augmentation(flip=share, resize=False), 0, "a") for share in (0.0, 1.0))
    assert torch.allclose(plain.pixels, flipped.pixels.flip(2), atol=2 / 127.5)


def test_valid_region_is_where_the_picture_is() -> None:
    settings = Augmentation(shrink_probability=1.0)
    for number in range(20):
        result = augment(IMAGE, 32, settings, 0, "a", number)
        # The picture holds no pure black, the canvas nothing else.
        assert torch.equal(result.valid[0] > 0, (result.pixels > -1).all(0))
        assert 0 < result.valid.mean() < 1 or result.valid.all()


def test_prefix_says_how_large_the_thing_is() -> None:
    results = [augment(IMAGE, 60, Augmentation(), 0, "a", number) for number in range(60)]
    prefixes = {result.prefix for result in results}
    assert prefixes == {"", *FAR_AWAY, *CLOSE_UP}
    assert all(result.valid.all() for result in results if result.prefix in CLOSE_UP)
    assert not any(result.valid.all() for result in results if result.prefix in FAR_AWAY)
    assert {augment(IMAGE, 60, Augmentation(prefixes=False), 0, "a", number).prefix for number in range(60)} == {""}


def test_latent_region_by_hand() -> None:
    valid = torch.zeros(1, 16, 16)
    valid[:, :, 3:] = 1  # the first of four columns of cells is partly blank
    expected = torch.ones(1, 4, 4)
    expected[:, :, :2] = 0  # the blank column and the one beside it
    assert torch.equal(latent_valid_region(valid, 4), expected)


def test_latent_region_is_never_empty_where_something_is_valid() -> None:
    valid = torch.zeros(1, 16, 16)
    valid[:, 4:8, 4:8] = 1
    assert latent_valid_region(valid, 4).sum() == 1
