"""The concepts of a run as the page shows them: a picture, the words for prompts, and whether it has a strength."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from PIL import ImageOps

from cns_lightning.data.images import read_picture
from cns_lightning.diffusion.sheets import pictures_of
from cns_lightning.errors import UserError
from cns_lightning.report.facts import data_url
from cns_lightning.runs.config import RunConfig
from cns_lightning.sequences.sequence import picture_files

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from cns_lightning.registry.files import ConceptEntry
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.runs.folder import RunFolder

SIDE = 192
"""Side of a concept's picture, in pixels; twice what the page takes for it."""


@dataclass(frozen=True)
class Card:
    """A concept on the page.

    Attributes:
        token: its token.
        word: its class word.
        picture: a data URL; empty where there is no picture of it.
        source: what the picture is, for who cannot see it.
        has_strength: whether a strength changes what it adds to the weights.
    """

    token: str
    word: str
    picture: str
    source: str
    has_strength: bool

    def plain(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return asdict(self)


def concept_cards(folder: RunFolder, registry: NeuronRegistry) -> list[Card]:
    """Returns a card for every learned concept, in learning order.

    Its picture is the first photo; where that is gone, what the run drew of it last; where it drew nothing, there is
    none.

    Raises:
        UserError: if the run's configuration is damaged.
    """
    kept = RunConfig.find(folder)
    photos = {concept.token: concept.images for concept in kept.read_sequence().concepts} if kept else {}
    drawn = _last_samples(folder, len(registry.tokens))
    cards = []
    for entry in registry.entries:
        source, picture = "photo", _first_photo(photos.get(entry.token))
        if picture is None:
            source, picture = "sample", drawn.get(_label(entry))
        cards.append(
            Card(
                token=entry.token,
                word=entry.class_word,
                picture="" if picture is None else data_url(ImageOps.fit(picture, _size(picture))),
                source="" if picture is None else source,
                has_strength=registry.fused_by is None and entry.counts["neurons"] > 0,
            )
        )
    return cards


def _size(picture: Image.Image) -> tuple[int, int]:
    # A small drawn picture is not blurred by enlarging it; the page shows its pixels.
    side = min(SIDE, *picture.size)
    return side, side


def _label(entry: ConceptEntry) -> str:
    return f"{entry.token} {entry.class_word}"


def _first_photo(images: Path | None) -> Image.Image | None:
    try:
        files = picture_files(images) if images is not None and images.is_dir() else []
    except UserError:
        return None
    for path in files:
        try:
            return read_picture(path)
        except UserError:  # Changed or damaged since; the next one does as well.
            continue
    return None


def _last_samples(folder: RunFolder, count: int) -> dict[str, Image.Image]:
    """Returns the newest picture that the run drew of each row of its sheets, by the row's label."""
    found: dict[str, Image.Image] = {}
    for stage in reversed(range(count)):
        rows = pictures_of(folder.sample_sheet(stage))
        found = {label: row[0] for label, row in rows.items() if row} | found
        if found:
            break
    return found
