"""Pictures that were decoded to see whether they can be used, kept for the stage that trains on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cns_lightning.data.images import read_picture

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

ROOM = 256 * 2**20
"""Bytes of memory: 89 million pixels, some seven photos of a phone. What does not fit is decoded again."""


class DecodedPictures:
    """Keeps decoded pictures as far as there is room; a file that has changed since is read anew.

    Args:
        room: bytes that may be kept.
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self._kept: dict[Path, tuple[tuple[int, int], Image.Image]] = {}

    def keep(self, path: Path) -> Image.Image:
        """Decodes a picture, and keeps it if there is room; raises what `read_picture` raises."""
        if path in self._kept:  # a folder of two concepts
            return self._kept[path][1]
        image = read_picture(path)
        size = 3 * image.width * image.height
        if size <= self.room:
            self.room -= size
            self._kept[path] = _state(path), image
        return image

    def take(self, path: Path) -> Image.Image:
        """Returns a picture, and keeps it no longer; raises what `read_picture` raises."""
        if path not in self._kept:
            return read_picture(path)
        state, image = self._kept.pop(path)
        self.room += 3 * image.width * image.height
        return image if path.exists() and _state(path) == state else read_picture(path)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
