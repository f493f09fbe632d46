"""Folders of pictures with everything that people's photos bring; noise, so that no two are alike."""

from pathlib import Path

import numpy
from PIL import Image

ORIENTATION = 0x0112


def noise(seed: int, side: int = 64) -> Image.Image:
    """Returns a coarse random pattern: hashes of two seeds differ in about half of their bits."""
    coarse = numpy.random.default_rng(seed).integers(0, 256, (10, 10, 3), dtype=numpy.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def turned() -> Image.Exif:
    """Returns EXIF that says: to be shown a quarter turn clockwise."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return exif


def write_good(folder: Path, seed: int, count: int = 3, side: int = 64) -> Path:
    """Writes plain pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        noise(100 * seed + number, side).save(folder / f"good{number}.png")
    return folder


def write_cut(path: Path, seed: int = 9) -> None:
    """Writes a JPEG that ends in the middle."""
    noise(seed, 256).save(path, "JPEG")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def write_odd(folder: Path) -> None:
    """Writes one picture of every kind that is converted when it is read."""
    folder.mkdir(parents=True, exist_ok=True)
    noise(1).save(folder / "turned.jpg", exif=turned())
    noise(2).convert("CMYK").save(folder / "cmyk.jpg")
    deep = (numpy.random.default_rng(3).random((64, 64)) * 65535).astype(numpy.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    layer = noise(4).convert("RGBA")
    layer.putalpha(128)
    layer.save(folder / "alpha.png")
    noise(5).save(folder / "moving.gif", save_all=True, append_images=[noise(6)])
    noise(7).save(folder / "named.jpg", "PNG")
    noise(8, 24).save(folder / "small.png")


def write_deep_colours(path: Path) -> None:
    """Writes an RGB PNG of 16 bits a channel by hand, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 64
    rows = numpy.random.default_rng(0).integers(0, 65536, (side, side * 3)).astype(">u2")
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", side, side, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    )
