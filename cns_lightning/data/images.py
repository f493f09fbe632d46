"""Reading a user's pictures: every kind of trouble ends in one sentence, the files are never touched."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from cns_lightning.errors import Faults, UserError
from cns_lightning.sequence import picture_files

if TYPE_CHECKING:
    from pathlib import Path

    from cns_lightning.sequence import Concept

LEAST_SIDE = 16


@dataclass(frozen=True)
class Picture:
    """A picture of a concept: RGB, upright, with its caption if a text file of the same name stands beside it."""

    path: Path
    image: Image.Image
    caption: str | None


def read_picture(path: Path) -> Image.Image:
    """Reads a picture as RGB, turned as its camera says; transparency becomes white, of an animation the first frame.

    Raises:
        UserError: if it is no picture, damaged, cut off, too small or not readable.
    """
    try:
        with warnings.catch_warnings():
            # A picture of over 90 million pixels is a warning, of twice that an error; both are mistakes here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                file.seek(0)
                image = _as_rgb(ImageOps.exif_transpose(file))
    except UnidentifiedImageError as error:
        raise UserError(str(path), "is no picture", "Replace it, or remove it from the folder") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(str(path), "has too many pixels", "Make it smaller") from error
    except PermissionError as error:
        raise UserError(str(path), "may not be read", "Change its permissions") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(str(path), f"is damaged or cut off ({error})", "Copy it again, or remove it") from error
    if min(image.size) < LEAST_SIDE:
        problem = f"is {image.width}x{image.height} pixels, at least {LEAST_SIDE} a side are needed"
        raise UserError(str(path), problem, "Replace it by a larger one")
    return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey: converting straight to RGB would cut everything above 255 off.
        _, high = image.convert("F").getextrema()
        span = 65535.0 if isinstance(high, float) and high > 255 else 255.0
        return image.convert("F").point(lambda value: value * (255.0 / span)).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def read_concept_pictures(concept: Concept) -> list[Picture]:
    """Reads the pictures of a concept in the order of their names.

    Raises:
        UserError: if there are none, or listing every picture and caption that cannot be used.
    """
    files = picture_files(concept.images) if concept.images.is_dir() else []
    if not files:
        remedy = "Put them back, or say in a sequence file where they are now"
        raise UserError(str(concept.images), f"holds no pictures of {concept.token} any more", remedy)
    faults, pictures = Faults(), []
    for path in files:
        try:
            pictures.append(Picture(path, read_picture(path), _caption(path)))
        except UserError as error:
            faults.add(error.where, error.problem, error.remedy)
    faults.raise_if_any()
    return pictures


def _caption(path: Path) -> str | None:
    beside = path.with_suffix(".txt")
    if not beside.exists():
        return None
    try:
        text = " ".join(beside.read_text("utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(beside), "cannot be read as UTF-8 text", "Save it again, or remove it") from error
    if not text:
        raise UserError(str(beside), "is empty", "Write what the picture shows, or remove it")
    return text
