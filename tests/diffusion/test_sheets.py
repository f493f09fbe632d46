"""The pictures of a sheet can be had again from its file."""

from pathlib import Path

import numpy
import pytest
from PIL import Image

from cns_lightning.diffusion.sheets import grid, pictures_of, sheet_bytes


def noise(side: int, seed: int) -> Image.Image:
    """Returns a picture of random pixels."""
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=numpy.uint8))


@pytest.mark.parametrize("side", [64, 160])
def test_pictures_come_back_in_their_size(side: int, tmp_path: Path) -> None:
    rows = [[noise(side, 0), noise(side, 1)], [noise(side, 2)]]
    path = tmp_path / "sheet.png"
    path.write_bytes(sheet_bytes(grid(rows, ["<a> cat", "untouched"], ["seed 0", "seed 1"])))
    found = pictures_of(path)
    assert {label: len(pictures) for label, pictures in found.items()} == {"<a> cat": 2, "untouched": 1}
    for label, row in zip(found, rows, strict=True):
        for ours, theirs in zip(found[label], row, strict=True):
            assert numpy.array_equal(numpy.asarray(ours), numpy.asarray(theirs))


def test_a_sheet_without_places_has_no_pictures(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "old.png")
    assert pictures_of(tmp_path / "old.png") == {}


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_a_damaged_sheet_has_no_pictures(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    assert pictures_of(path) == {}
    whole = sheet_bytes(grid([[noise(64, 0)]], ["<a> cat"], ["seed 0"]))
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert pictures_of(path) == {}
