"""Every kind of trouble a folder of photos brings."""

import io
import os
import struct
import unicodedata
from pathlib import Path

import numpy
import pytest
from PIL import Image

from cns_lightning.data.images import read_captions, read_concept_pictures, read_picture
from cns_lightning.errors import UserError
from cns_lightning.sequences.sequence import Concept, left_out, picture_files, register_heif

PIXELS = numpy.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=numpy.uint8)


def test_picture_is_turned_as_the_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    assert numpy.array_equal(numpy.asarray(read_picture(tmp_path / "a.png")), numpy.rot90(PIXELS, -1))


def test_a_phones_heic_is_read_as_it_is_seen(tmp_path: Path) -> None:
    slopes = ((1, 2), (3, 0), (0, 3))
    smooth = numpy.stack([numpy.add.outer(numpy.arange(48) * a, numpy.arange(64) * b) for a, b in slopes], -1)
    assert register_heif()
    exif = Image.Exif()
    exif[0x0112] = 6  # of no account: the format has a place of its own for that
    Image.fromarray(smooth.astype(numpy.uint8)).save(tmp_path / "IMG_1.HEIC", format="HEIF", quality=95, exif=exif)
    read = numpy.asarray(read_picture(tmp_path / "IMG_1.HEIC")).astype(int)
    assert abs(read - smooth).mean() < 2
    assert picture_files(tmp_path) == [tmp_path / "IMG_1.HEIC"]


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
    assert "a.jpg: is not a picture" in _refused(tmp_path / "a.jpg")


def test_tiny_picture_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (40, 8)).save(tmp_path / "a.png")
    assert "is 40x8 pixels, at least 16 a side are needed" in _refused(tmp_path / "a.png")


def test_huge_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "has more than 1,000 pixels" in _refused(tmp_path / "a.png")


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


def test_a_caption_may_leave_the_token_to_the_sequence(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "momo.png")
    (tmp_path / "momo.txt").write_text("a {token} cat on a sofa", "utf-8")
    for token in ("<a>", "<Momo>"):
        assert read_concept_pictures(Concept(token, "cat", "animal", tmp_path))[0].caption == f"a {token} cat on a sofa"
    (tmp_path / "momo.txt").write_text("a {token} {class_word} on a sofa", "utf-8")
    with pytest.raises(UserError, match=r"momo\.txt: names \{class_word\}"):
        read_concept_pictures(Concept("<a>", "cat", "animal", tmp_path))


def _profile(red: tuple[float, float, float] = (0.51512, 0.2412, -0.00105)) -> bytes:
    """Writes an ICC profile by hand: Display P3's primaries with a gamma of 2.2."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def point(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(number, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563) + b"\0\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 3) + b"P3\0" + b"\0" * 79,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": point(0.9642, 1, 0.8249),
        b"rXYZ": point(*red),
        b"gXYZ": point(0.29198, 0.69225, 0.04189),
        b"bXYZ": point(0.1571, 0.06657, 0.78407),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    table, data, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        table += key + struct.pack(">II", start + len(data), len(value))
        data += value + b"\0" * (-len(value) % 4)
    head = bytearray(128)
    head[0:4] = struct.pack(">I", 128 + len(table) + len(data))
    head[8:12], head[12:24], head[36:40] = b"\x02\x10\0\0", b"mntrRGB XYZ ", b"acsp"
    head[68:80] = number(0.9642) + number(1) + number(0.8249)
    return bytes(head) + table + data


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_profile_is_converted(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (32, 32), (230, 170, 140)).save(tmp_path / "a.png", icc_profile=_profile())
    # By hand: linear Display P3 to XYZ to linear sRGB, which is more strongly coloured.
    linear = (numpy.array([230, 170, 140]) / 255) ** 2.2
    to_xyz = numpy.array([[0.4866, 0.2657, 0.1982], [0.2290, 0.6917, 0.0793], [0.0, 0.0451, 1.0439]])
    to_rgb = numpy.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    meant = (to_rgb @ to_xyz @ linear) ** (1 / 2.2) * 255
    read = numpy.asarray(read_picture(tmp_path / "a.png"))[5, 5]
    assert numpy.abs(read - meant).max() < 4
    assert numpy.abs(read - numpy.array([230, 170, 140])).max() > 6


def test_a_profile_that_does_not_belong_is_ignored(tmp_path: Path) -> None:
    Image.new("L", (32, 32), 77).save(tmp_path / "grey.png", icc_profile=_profile())
    Image.fromarray(PIXELS).save(tmp_path / "broken.png", icc_profile=b"no profile")
    assert read_picture(tmp_path / "grey.png").getpixel((5, 5)) == (77, 77, 77)
    assert numpy.array_equal(numpy.asarray(read_picture(tmp_path / "broken.png")), PIXELS)


def test_odd_exif_is_survived_and_the_picture_upright(tmp_path: Path) -> None:
    entries = [(0x112, 3, 1, struct.pack("<H", 6)), (0x11A, 10, 1, struct.pack("<ii", -1, 0))]
    head, body, start = b"", b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        inside = value if len(value) <= 4 else struct.pack("<I", start + len(body))
        head += struct.pack("<HHI", tag, kind, count) + inside.ljust(4, b"\0")
        body += value if len(value) > 4 else b""
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + head + b"\0\0\0\0" + body
    plain = io.BytesIO()
    Image.fromarray(PIXELS).save(plain, "JPEG", quality=95)
    data = plain.getvalue()
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    meant = numpy.rot90(numpy.asarray(Image.open(plain)), -1)
    assert numpy.array_equal(numpy.asarray(read_picture(tmp_path / "a.jpg")), meant)


def test_numbers_are_scaled_or_refused(tmp_path: Path) -> None:
    dark = numpy.full((32, 32), 200, numpy.uint16)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    assert read_picture(tmp_path / "dark.png").getpixel((5, 5)) == (1, 1, 1)
    for name, values, meant in (("share", 0.5, 128), ("eight", 128.0, 128)):
        Image.fromarray(numpy.full((32, 32), values, numpy.float32)).save(tmp_path / f"{name}.tiff")
        assert read_picture(tmp_path / f"{name}.tiff").getpixel((5, 5)) == (meant,) * 3
    for name, value in (("negative", -1.0), ("large", 1e4), ("nan", numpy.nan)):
        Image.fromarray(numpy.full((32, 32), value, numpy.float32)).save(tmp_path / f"{name}.tiff")
        assert "brightness is not known" in _refused(tmp_path / f"{name}.tiff")


def test_a_file_of_a_format_that_runs_programs_is_refused(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    assert "is not a picture" in _refused(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        (b"\xef\xbb\xbfa photo of <momo> cat", "a photo of <momo> cat"),
        (b"a photo of <Momo> cat\r\n", "a photo of <momo> cat"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a photo of <new1> cat", "names <new1>, and shows <momo>"),
        (b"caf\xe9", "cannot be read as UTF-8"),
    ],
)
def test_captions_are_read_as_prompts_are(tmp_path: Path, data: bytes, caption: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(data)
    concept = Concept("<momo>", "cat", "animal", tmp_path)
    if caption.startswith("a photo"):
        assert read_concept_pictures(concept)[0].caption == caption
        assert read_captions(concept) == {tmp_path / "a.png": caption}
    else:
        with pytest.raises(UserError, match=caption):
            read_concept_pictures(concept)


@pytest.mark.parametrize("name", ["a.TXT", "a.caption"])
def test_captions_may_be_called_otherwise(tmp_path: Path, name: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    (tmp_path / name).write_text("a photo of <momo> cat", "utf-8")
    concept = Concept("<momo>", "cat", "animal", tmp_path)
    assert read_captions(concept) == {tmp_path / "a.png": "a photo of <momo> cat"}
    assert left_out(tmp_path) == ""
    (tmp_path / "a.txt").write_text("a <momo> cat", "utf-8")
    with pytest.raises(UserError, match=r"is a caption of a\.png, and so is a\.txt"):
        read_captions(concept)


def test_letters_of_two_characters_name_the_same_token(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    decomposed = unicodedata.normalize("NFD", "<m\u00f4m\u00f4>")
    (tmp_path / "a.txt").write_text(f"a photo of {decomposed} cat", "utf-8")
    concept = Concept("<m\u00f4m\u00f4>", "cat", "animal", tmp_path)
    assert read_captions(concept) == {tmp_path / "a.png": "a photo of <m\u00f4m\u00f4> cat"}


def test_what_a_decoder_says_in_its_own_way_is_said_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)

    def load(_: Image.Image) -> None:
        raise RuntimeError("Failed to decode image: Not implemented")  # as Pillow's reader of AVIF does

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    assert "a.png: is damaged or cut off (Failed to decode image" in _refused(path)
