"""Every kind of trouble a folder of photos brings."""

import os
from pathlib import Path

import numpy
import pytest
from PIL import Image

from cns_lightning.data.images import read_concept_pictures, read_picture
from cns_lightning.errors import UserError
from cns_lightning.sequence import Concept

PIXELS = numpy.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=numpy.uint8)


def test_picture_is_turned_as_the_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    assert numpy.array_equal(numpy.asarray(read_picture(tmp_path / "a.png")), numpy.rot90(PIXELS, -1))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / f"a.{suffix}")
    image = read_picture(tmp_path / f"a.{suffix}")
    assert (image.mode, image.size) == ("RGB", (40, 24))


def test_grey_stays_grey_in_sixteen_bits(tmp_path: Path) -> None:
    grey = numpy.linspace(0, 65535, 32 * 32).astype(numpy.uint16).reshape(32, 32)
    Image.fromarray(grey).save(tmp_path / "a.png")
    read = numpy.asarray(read_picture(tmp_path / "a.png")).astype(int)
    assert (read[..., 0] == read[..., 1]).all()
    assert abs(read[..., 0] - grey // 257).max() <= 1


def test_transparency_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").getpixel((5, 5)) == (255, 255, 255)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert read_picture(tmp_path / "a.webp").getpixel((5, 5)) == (255, 0, 0)


def _refused(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_picture(path)
    return str(refused.value)


def test_cut_off_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "a.jpg: is damaged or cut off" in _refused(path)


def test_text_in_disguise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    assert "a.jpg: is no picture" in _refused(tmp_path / "a.jpg")


def test_tiny_picture_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (40, 8)).save(tmp_path / "a.png")
    assert "is 40x8 pixels, at least 16 a side are needed" in _refused(tmp_path / "a.png")


def test_huge_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "has too many pixels" in _refused(tmp_path / "a.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_picture_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    assert "may not be read" in _refused(tmp_path / "a.png")


def test_all_faults_of_a_folder_are_said_at_once(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no picture")
    Image.new("RGB", (4, 4)).save(tmp_path / "small.png")
    (tmp_path / "good.txt").write_text("  ")
    with pytest.raises(UserError) as refused:
        read_concept_pictures(Concept("<a>", "cat", "animal", tmp_path))
    lines = str(refused.value).splitlines()
    assert [name for name in ("bad.png", "good.txt", "small.png") if any(name in line for line in lines)] == [
        "bad.png",
        "good.txt",
        "small.png",
    ]


def test_caption_stands_beside_its_picture(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "momo.png")
    (tmp_path / "momo.txt").write_text("a cat\n on a sofa\n", "utf-8")
    assert read_concept_pictures(Concept("<a>", "cat", "animal", tmp_path))[0].caption == "a cat on a sofa"
