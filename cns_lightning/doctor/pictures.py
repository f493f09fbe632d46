"""What can be said of pictures: from their headers at once, from what is in them when all are decoded."""

from __future__ import annotations

import struct
import warnings
from typing import TYPE_CHECKING

from PIL import Image

from cns_lightning.data.images import FORMATS, read_concept_pictures, read_picture
from cns_lightning.data.masks import Masks
from cns_lightning.doctor.findings import Finding, Severity, refusals
from cns_lightning.doctor.likeness import alike, both_ways
from cns_lightning.errors import UserError
from cns_lightning.sequences.sequence import (
    CAPTION_SUFFIXES,
    captions_beside,
    is_readable_folder,
    left_out,
    masks_beside,
    picture_files,
    register_heif,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cns_lightning.sequences.sequence import Concept

ORIENTATION = 0x0112
UPRIGHT = 1
SAME_FORMAT = {"MPO": "JPEG", "DIB": "BMP"}
"""Formats that are written as others are called."""
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
# What Pillow raises for headers and EXIF that are odd; whether the picture can be used, `read_picture` says.
UNREADABLE = (
    *(ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    struct.error,
    Image.DecompressionBombError,
)
UNREAD_CAPTIONS = "Not read (data.captions is false): every picture gets the prompt of its kind"


def header_findings(concepts: Sequence[Concept], resolution: int | None) -> list[Finding]:
    """Returns what the headers of pictures tell; nothing is decoded, a thousand pictures take seconds.

    Args:
        concepts: concepts whose pictures are there.
        resolution: side of the pictures that the base model draws, in pixels; None where that is not known.
    """
    register_heif()
    Image.init()
    folders = dict.fromkeys(concept.images for concept in concepts if is_readable_folder(concept.images))
    found: list[Finding] = []
    for path in (path for folder in folders for path in picture_files(folder)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as file:
                    found += _of_header(file, path, resolution)
        except UNREADABLE:
            continue
    return found


def _of_header(file: Image.Image, path: Path, resolution: int | None) -> list[Finding]:
    noticed = [(problem, remedy) for problem, remedy in _conversions(file, path) if problem]
    found = [Finding(Severity.NOTE, problem, str(path.parent), remedy, (path.name,)) for problem, remedy in noticed]
    if resolution is not None and min(file.size) < resolution:
        problem = f"smaller than the {resolution} pixels a side of the base model's pictures"
        remedy = "It is enlarged, and learned as blurred: take a larger one if there is one"
        name = f"{path.name} ({file.width}x{file.height})"
        found.append(Finding(Severity.WARNING, problem, str(path.parent), remedy, (name,)))
    return found


def _conversions(file: Image.Image, path: Path) -> list[tuple[str, str]]:
    """Lists what a picture is, and how it is read therefore; an empty problem for what it is not."""
    kind = SAME_FORMAT.get(file.format or "", file.format or "")
    named = SAME_FORMAT.get(of := Image.registered_extensions().get(path.suffix.lower(), ""), of)
    is_deep = (
        file.mode == "F" or file.mode.startswith("I") or any(";16" in str(tile) for tile in getattr(file, "tile", ()))
    )
    has_alpha = file.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in file.info
    is_animated = kind in ANIMATED and getattr(file, "is_animated", False)
    return [
        (f"a {kind} that is called {path.suffix}" if named not in ("", kind) else "", f"Read as {kind}"),
        ("turned by its EXIF orientation" if _is_turned(file) else "", "Read upright"),
        ("CMYK" if file.mode == "CMYK" else "", "Converted to RGB"),
        ("more than 8 bits a channel" if is_deep else "", "Scaled to 8 bits"),
        ("has an alpha channel" if has_alpha else "", "What is transparent becomes white"),
        ("animated" if is_animated else "", "The first frame is read"),
        ("HEIC" if kind == "HEIF" else "", "Read with pillow-heif"),
    ]


def _is_turned(file: Image.Image) -> bool:
    try:
        return file.getexif().get(ORIENTATION, UPRIGHT) in range(2, 9)
    except UNREADABLE:
        return False


def folder_findings(concepts: Sequence[Concept], with_captions: bool = True) -> list[Finding]:
    """Returns what folders hold beside pictures: captions, masks, and what is not read.

    Args:
        concepts: concepts whose pictures are needed.
        with_captions: whether captions are read.
    """
    styles = [concept for concept in concepts if concept.kind == "style" and is_readable_folder(concept.images)]
    found = [_uncaptioned(style, with_captions) for style in styles if not with_captions or _is_bare(style)]
    for folder in dict.fromkeys(concept.images for concept in concepts if is_readable_folder(concept.images)):
        pictures = picture_files(folder)
        with_caption = [path for path in pictures if captions_beside(path)]
        if with_caption:
            problem = f"{len(with_caption)} of {len(pictures)} pictures have a caption beside them"
            others = "" if len(with_caption) == len(pictures) else "; the others get the prompt of their kind"
            remedy = f"Used as the pictures' training prompts{others}" if with_captions else UNREAD_CAPTIONS
            found.append(Finding(Severity.NOTE, problem, str(folder), remedy))
        stems = {path.stem for path in pictures}
        texts = sorted(path for path in folder.iterdir() if path.suffix.lower() in CAPTION_SUFFIXES)
        alone = tuple(path.name for path in texts if path.stem not in stems and not path.name.startswith("."))
        if alone:
            remedy = "Not read: call it as its picture is called, or leave it"
            found.append(Finding(Severity.WARNING, "a caption without its picture", str(folder), remedy, alone))
        if beside := left_out(folder, alone):
            found.append(_unread(folder, beside))
    return found


def _is_bare(concept: Concept) -> bool:
    return not any(captions_beside(path) for path in picture_files(concept.images))


def _uncaptioned(concept: Concept, with_captions: bool) -> Finding:
    problem = f"{concept.token} is a style that is learned without captions: it also learns what its pictures show"
    beside, words = "1.txt beside 1.jpg", f"{concept.token} {concept.class_word}"
    manner = words if concept.class_word.lower().endswith("style") else f"the style of {words}"
    remedy = f'Write what a picture shows into a text file of its name: {beside}, "a boat in {manner}"'
    if not with_captions:
        remedy = f"Take data.captions false out. {remedy}"
    return Finding(Severity.NOTE, problem, str(concept.images), remedy)


def _unread(folder: Path, beside: str) -> Finding:
    remedy = "Nothing, or move what shows the concept to its pictures"
    if "HEIC" in beside:
        remedy = "pip install pillow-heif, or convert the HEIC files to JPEG"
    return Finding(Severity.WARNING, f"not read: {beside}", str(folder), remedy)


def content_findings(
    concepts: Sequence[Concept],
    progress: Callable[[int, int], None] = lambda done, of: None,
    masks: Masks = Masks(),  # noqa: B008 - frozen
    with_captions: bool = True,
) -> list[Finding]:
    """Decodes every picture and mask as `fit` does; returns what cannot be used, masks, and what is nearly the same.

    Args:
        concepts: concepts whose pictures are needed.
        progress: called with pictures done and pictures in all.
        masks: how much the parts of a picture count.
        with_captions: whether captions are read.
    """
    present = [concept for concept in concepts if is_readable_folder(concept.images) and picture_files(concept.images)]
    total, done = sum(len(picture_files(concept.images)) for concept in present), 0
    hashes: dict[Path, tuple[int, int]] = {}
    found: list[Finding] = []

    def read(path: Path) -> Image.Image:
        nonlocal done
        progress(done, total)
        done += 1
        image = read_picture(path)
        hashes[path] = both_ways(image)
        if masks.of(path, image.size) is not None:
            found.append(_masked(path, masks))
        return Image.new("RGB", (1, 1))  # the list of a folder's pictures would hold all of them decoded

    for concept in present:
        try:
            read_concept_pictures(concept, read, with_captions=with_captions)
        except UserError as error:
            found += refusals(error)
    progress(total, total)
    return found + [finding for group in alike(hashes) for finding in _nearly_the_same(group)]


def _masked(path: Path, masks: Masks) -> Finding:
    beside, folder = masks_beside(path), str(path.parent)
    problem, part = ("a mask beside the picture", "black") if beside else ("transparent in part", "transparent")
    counts = f"What is {part} counts {masks.outside:g} in the loss, the rest 1 (data.masks)"
    return Finding(Severity.NOTE, problem, folder, counts, (beside[0].name if beside else path.name,))


def _nearly_the_same(group: Sequence[Path]) -> list[Finding]:
    folders: dict[Path, list[str]] = {}
    for path in group:
        folders.setdefault(path.parent, []).append(path.name)
    if len(folders) > 1:
        places = ", ".join(f"{folder.name}/{name}" for folder, names in folders.items() for name in names)
        problem = "nearly the same picture in the folders of several concepts"
        remedy = "Both would learn it: keep it where it belongs"
        return [Finding(Severity.WARNING, problem, places, remedy)]
    folder, names = next(iter(folders.items()))
    problem, remedy = "nearly the same picture", "Keep the best: the others add nothing, and it counts as often"
    return [Finding(Severity.WARNING, problem, str(folder), remedy, tuple(names))]
