"""Reading a user's pictures: every kind of trouble ends in one sentence, the files are never touched."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from cns_lightning.errors import Problems, UserError
from cns_lightning.sequences.sequence import TOKEN, captions_beside, picture_files, register_heif
from cns_lightning.sequences.templates import PLACEHOLDERS
from cns_lightning.user_files import composed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cns_lightning.sequences.sequence import Concept

LEAST_SIDE = 16
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "HEIF")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ODD_EXIF = (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)


@dataclass(frozen=True)
class Picture:
    """A picture of a concept: RGB, upright, with its caption if a text file of the same name stands beside it.

    Its mask is grey and of the same size, or None: all of it is learned.
    """

    path: Path
    image: Image.Image
    caption: str | None
    mask: Image.Image | None = None


def read_picture(path: Path) -> Image.Image:
    """Reads a picture as a person sees it: upright, as RGB in sRGB.

    Transparency becomes white, of an animation the first frame counts, numbers of more than 8 bits are scaled.

    Raises:
        UserError: if it is not a picture, is damaged, cut off, too small or unreadable, or its numbers have no scale.
    """
    image = _decoded(path, lambda file: _as_rgb(_upright(file), str(path)))
    assert image is not None
    if min(image.size) < LEAST_SIDE:
        problem = f"is {image.width}x{image.height} pixels, at least {LEAST_SIDE} a side are needed"
        raise UserError(str(path), problem, "Replace it by a larger one")
    return image


def read_grey(path: Path) -> Image.Image:
    """Reads a picture as shades of grey, upright, what is transparent black; raises what `read_picture` raises."""
    image = _decoded(path, lambda file: _as_grey(_upright(file), str(path)))
    assert image is not None
    return image


def read_alpha(path: Path) -> Image.Image | None:
    """Reads the alpha channel of a picture, upright, as grey; raises what `read_picture` raises.

    Returns:
        None where it has none, or is opaque all over.
    """
    return _decoded(path, lambda file: _alpha(_upright(file), str(path)) if file.has_transparency_data else None)


def _decoded(path: Path, convert: Callable[[Image.Image], Image.Image | None]) -> Image.Image | None:
    try:
        with warnings.catch_warnings():
            # A picture of over 90 million pixels is a warning, of twice that an error; both are mistakes here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            register_heif()
            Image.init()
            # Named, or Pillow would start Ghostscript for an EPS that is called .png.
            with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as file:
                file.seek(0)
                image = convert(file)
    except UnidentifiedImageError as error:
        raise UserError(str(path), "is not a picture", "Replace it, or remove it from the folder") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        problem = f"has more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels"
        raise UserError(str(path), problem, "Make it smaller") from error
    except PermissionError as error:
        raise UserError(str(path), "may not be read", "Change its permissions") from error
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError) as error:  # the last one for an AVIF
        raise UserError(str(path), f"is damaged or cut off ({error})", "Copy it again, or remove it") from error
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _ODD_EXIF:  # Pillow writes all of it anew to turn a picture, also fields that nobody needs
        try:
            turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
        except _ODD_EXIF:
            turn = None
        return image.copy() if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image, where: str) -> Image.Image:
    return _upon(_in_srgb(_layered(_scaled(image, where))), "white").convert("RGB")


def _as_grey(image: Image.Image, where: str) -> Image.Image:
    return _upon(_layered(_scaled(image, where)), "black").convert("RGB").convert("L")


def _alpha(image: Image.Image, where: str) -> Image.Image | None:
    layer = _layered(_scaled(image, where))
    alpha = layer.getchannel("A") if layer.mode in ("RGBA", "LA") else None
    return None if alpha is None or alpha.getextrema() == (255, 255) else alpha


def _layered(image: Image.Image) -> Image.Image:
    """Turns what says in another way than by an alpha channel of its own what is transparent into RGBA."""
    if image.mode in ("P", "PA", "RGBa", "La") or ("transparency" in image.info and image.mode in ("L", "RGB")):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image


def _upon(image: Image.Image, colour: str) -> Image.Image:
    if image.mode not in ("RGBA", "LA"):
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, colour), layer)


def _scaled(image: Image.Image, where: str) -> Image.Image:
    """Scales grey of more than 8 bits to 8; leaves other pictures as they are.

    Raises:
        UserError: if the range of the numbers is not known.
    """
    if not image.mode.startswith("I") and image.mode != "F":
        return image
    numbers = numpy.asarray(image).astype(numpy.float64)
    least, most = (float(numbers.min()), float(numbers.max())) if numpy.isfinite(numbers).all() else (-1.0, -1.0)
    ceiling = 65535.0 if image.mode != "F" else 1.0 if most <= 1 else 255.0
    if least < 0 or most > ceiling:
        asked = "numbers from 0 to 1 or to 255" if image.mode == "F" else "numbers from 0 to 65535"
        problem = f"holds other than {asked}, so that its brightness is not known"
        raise UserError(where, problem, "Save it with 8 bits a channel")
    return Image.fromarray(numpy.rint(numbers * (255 / ceiling)).astype(numpy.uint8))


def _in_srgb(image: Image.Image) -> Image.Image:
    """Converts colours from the embedded profile to sRGB; ignores, as viewers do, one that is damaged or misplaced."""
    profile = image.info.get("icc_profile")
    if not profile and image.mode != "LAB":
        return image
    target = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=target)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return converted or image


def read_concept_pictures(
    concept: Concept,
    read: Callable[[Path], Image.Image] = read_picture,
    mask: Callable[[Path, tuple[int, int]], Image.Image | None] = lambda path, size: None,
    with_captions: bool = True,
) -> list[Picture]:
    """Reads the pictures of a concept in the order of their names.

    Args:
        concept: concept of the sequence.
        read: decodes a picture; one that keeps what it decodes takes the place of `read_picture`.
        mask: returns the mask of a picture of a size, as `Masks.of`; by default none is read.
        with_captions: False leaves captions unread.

    Raises:
        UserError: if there are none, or listing every picture, caption and mask that cannot be used.
    """
    files = picture_files(concept.images) if concept.images.is_dir() else []
    if not files:
        remedy = "Put them back, or say in a sequence file where they are now"
        raise UserError(str(concept.images), f"holds no pictures of {concept.token} any more", remedy)
    problems, pictures = Problems(), []
    for path in files:
        try:
            image = read(path)
            caption = _caption(path, concept.token) if with_captions else None
            pictures.append(Picture(path, image, caption, mask(path, image.size)))
        except UserError as error:
            problems.add(error.where, error.problem, error.remedy)
    problems.raise_if_any()
    return pictures


def read_photos(concept: Concept) -> list[Image.Image]:
    """Reads the pictures of a concept without what stands beside them; raises what `read_concept_pictures` raises."""
    return [picture.image for picture in read_concept_pictures(concept, with_captions=False)]


def read_captions(concept: Concept) -> dict[Path, str]:
    """Reads the captions beside the pictures of a concept, by picture; raises what `read_concept_pictures` raises."""
    files = picture_files(concept.images) if concept.images.is_dir() else []
    found = {path: _caption(path, concept.token) for path in files}
    return {path: caption for path, caption in found.items() if caption is not None}


def _caption(path: Path, token: str) -> str | None:
    """Reads the caption beside a picture, with the token, for which ``{token}`` may stand, in the case of the sequence.

    Raises:
        UserError: if it is not text, is empty, names another token, or what templates alone fill in.
    """
    found = captions_beside(path)
    if not found:
        return None
    beside = found[0]
    if len(found) > 1:
        problem = f"is a caption of {path.name}, and so is {found[1].name}"
        raise UserError(str(beside), problem, "Keep one of them")
    try:
        text = composed(" ".join(beside.read_bytes().decode("utf-8-sig").split())).replace("{token}", token)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(beside), "cannot be read as UTF-8 text", "Save it again, or remove it") from error
    if not text:
        raise UserError(str(beside), "is empty", "Write what the picture shows, or remove it")
    if filled := [f"{{{name}}}" for name in PLACEHOLDERS if f"{{{name}}}" in text]:
        problem = f"names {', '.join(filled)}, which templates alone fill in"
        raise UserError(str(beside), problem, "Write the words themselves; {token} alone is filled in")
    others = [named for named in dict.fromkeys(TOKEN.findall(text)) if named.lower() != token.lower()]
    if others:
        problem = f"names {', '.join(others)}, and shows {token}"
        raise UserError(str(beside), problem, f"Write {token} in its place, or take it out")
    return TOKEN.sub(lambda _: token, text)
