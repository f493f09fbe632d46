"""Copies of a picture hash alike, other pictures do not."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance

from cns_lightning.doctor.likeness import ALIKE, alike, both_ways, difference_hash
from cns_lightning.sequences.sequence import Sequence, picture_files, sequence_path
from tests.doctor.photos import noise


def saved_badly(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved badly": saved_badly,
    "smaller": lambda image: image.resize((70, 70)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "paler": lambda image: ImageEnhance.Color(image).enhance(0.3),
    "cropped a little": lambda image: image.crop((3, 3, image.width - 3, image.height - 3)),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies(name: str) -> None:
    for seed in range(8):
        picture = noise(seed, 256)
        assert (difference_hash(picture) ^ difference_hash(COPIES[name](picture))).bit_count() <= ALIKE


def test_other_pictures_are_not_alike() -> None:
    # Five pictures of one thing each, by the same program: nearer to each other than photos ever were.
    for name in ("miniature_set1", "miniature_set2"):
        concepts = Sequence.read(sequence_path(name)).concepts
        paths = [path for concept in concepts for path in picture_files(concept.images)]
        assert len(paths) == 35
        assert alike({path: both_ways(Image.open(path).convert("RGB")) for path in paths}) == []


def test_groups_hold_what_is_alike_by_way_of_a_third() -> None:
    a, b, c, d = (Path(name) for name in "abcd")
    twelve, both = (1 << 12) - 1, (1 << 24) - 1
    hashes = {a: (0, 0), b: (both, both), c: (twelve, twelve), d: ((1 << 128) - 1, (1 << 128) - 1)}
    assert alike(hashes) == [[a, b, c]]
    del hashes[c]
    assert alike(hashes) == []
