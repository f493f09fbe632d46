"""A picture is decoded once where there is room, and never an old one for a new file."""

import os
from pathlib import Path

import pytest
from PIL import Image

from cns_lightning.data import decoded
from cns_lightning.data.decoded import DecodedPictures
from cns_lightning.data.images import read_picture


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Returns the files that have been decoded, as it grows."""
    found: list[Path] = []

    def counted(path: Path) -> Image.Image:
        found.append(path)
        return read_picture(path)

    monkeypatch.setattr(decoded, "read_picture", counted)
    return found


def test_what_fits_is_decoded_once(tmp_path: Path, reads: list[Path]) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(path)
    pictures = DecodedPictures(room=2 * 3 * 20 * 20)
    for path in paths:
        pictures.keep(path)
    assert [pictures.take(path).getpixel((0, 0)) for path in paths] == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert reads == [*paths, paths[2]]
    assert pictures.room == 2 * 3 * 20 * 20
    pictures.take(paths[0])
    assert reads[-1] == paths[0]


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path, pictures = tmp_path / "photo.png", DecodedPictures()
    Image.new("RGB", (20, 20), "red").save(path)
    pictures.keep(path)
    Image.new("RGB", (20, 20), "blue").save(path)
    os.utime(path, ns=(1, 1))
    assert pictures.take(path).getpixel((0, 0)) == (0, 0, 255)
