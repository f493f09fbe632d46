"""Pictures for an export's card: rows of the sheet that the run drew after the last exported stage."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from PIL import Image

from cns_lightning.diffusion.sheets import grid, pictures_of

if TYPE_CHECKING:
    from cns_lightning.export.learned import Learned

LARGEST_PREVIEW = 512
"""Longest side of the picture beside a weight file, in pixels; programs show it as a card."""
SHEET = "samples.jpg"


@dataclass(frozen=True)
class SamplePictures:
    """Pictures that the run drew of the exported concepts.

    Attributes:
        rows: pictures by token.
        labels: label of each row.
    """

    rows: dict[str, list[Image.Image]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, learned: Learned) -> SamplePictures:
        """Reads the pictures; none where the run drew none, or not of the very model that is exported."""
        path = learned.folder.sample_sheet(len(learned.concepts) - 1)
        drawn = pictures_of(path)
        labels = {concept.token: f"{concept.token} {concept.class_word}" for concept in learned.concepts}
        if not drawn.get(labels[learned.last]):
            return cls()
        rows = {token: drawn[label] for token, label in labels.items() if drawn.get(label)}
        return cls(rows, [labels[token] for token in rows])

    def sheet(self) -> bytes | None:
        """Returns all of them on one sheet, as JPEG; None where there are none."""
        return _encoded(grid(list(self.rows.values()), self.labels, []), "JPEG") if self.rows else None

    def preview(self, token: str | None = None) -> bytes | None:
        """Returns a small picture of one concept, or of all where none is named, as PNG; None where there is none."""
        if token is not None and token not in self.rows:
            return None
        if not self.rows:
            return None
        firsts = [pictures[0] for pictures in self.rows.values()] if token is None else [self.rows[token][0]]
        side = max(1, round(len(firsts) ** 0.5))
        rows = [firsts[start : start + side] for start in range(0, len(firsts), side)]
        picture = grid(rows, [""] * len(rows), []) if len(firsts) > 1 else firsts[0]
        picture.thumbnail((LARGEST_PREVIEW, LARGEST_PREVIEW))
        return _encoded(picture, "PNG")


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    # A fresh picture: what a sheet says of itself is of no use elsewhere.
    clean = Image.new("RGB", picture.size)
    clean.paste(picture)
    clean.save(buffer, kind, quality=92)
    return buffer.getvalue()
