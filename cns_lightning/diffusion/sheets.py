"""Sheets of pictures to look at, and the pictures of a sheet again."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

if TYPE_CHECKING:
    from pathlib import Path

READABLE = 128
"""Pictures of a sheet are enlarged by whole numbers until they are at least this wide, in pixels."""
INK, PAPER = (40, 40, 46), (255, 255, 255)
LAYOUT = "layout"
"""Key of a sheet's text that says where its pictures are."""


def grid(rows: list[list[Image.Image]], row_labels: list[str], column_labels: list[str]) -> Image.Image:
    """Lays pictures out on a sheet with labels at the left and on top.

    Args:
        rows: pictures of one size; rows may be of different lengths.
        row_labels: one a row, wrapped; no room is left for them when all are empty.
        column_labels: at most one a column, wrapped; likewise.

    Returns:
        The sheet, RGB; small pictures are enlarged, pixel by pixel, so that `pictures_of` gives the very pictures
        again. Its ``info`` says where they are.
    """
    first = next((picture for row in rows for picture in row), Image.new("RGB", (READABLE, READABLE), PAPER))
    scale = max(1, -(-READABLE // first.width))
    width, height = first.width * scale, first.height * scale
    gap, text_size = max(4, width // 24), max(13, width // 11)
    font = ImageFont.load_default(text_size)
    sides = [_wrapped(label, font, max(width, 10 * text_size)) for label in row_labels]
    tops = [_wrapped(label, font, width) for label in column_labels]
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = max((_extent(measure, text, font)[0] for text in sides), default=0)
    top = max((_extent(measure, text, font)[1] for text in tops), default=0)
    left, top = gap + (left + gap if left else 0), gap + (top + gap if top else 0)
    row_height = max([height, *(_extent(measure, text, font)[1] for text in sides)]) + gap
    columns = max((len(row) for row in rows), default=0)
    sheet = Image.new("RGB", (left + columns * (width + gap), top + len(rows) * row_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, text in enumerate(tops[:columns]):
        centre = left + column * (width + gap) + width // 2
        draw.multiline_text((centre, top - gap), text, INK, font, anchor="md", align="center")
    for number, row in enumerate(rows):
        middle = top + number * row_height + height // 2
        if number < len(sides):
            draw.multiline_text((gap, middle), sides[number], INK, font, anchor="lm")
        for column, picture in enumerate(row):
            cell = picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(cell, (left + column * (width + gap), top + number * row_height))
    layout = {
        "origin": (left, top), "step": (width + gap, row_height), "size": (width, height),
        "drawn": first.size, "rows": [len(row) for row in rows], "labels": row_labels,
    }  # fmt: skip
    sheet.info[LAYOUT] = json.dumps(layout)
    return sheet


def sheet_bytes(sheet: Image.Image) -> bytes:
    """Returns a sheet as PNG, with the places of its pictures."""
    text, buffer = PngInfo(), io.BytesIO()
    text.add_text(LAYOUT, sheet.info[LAYOUT])
    sheet.save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


def pictures_of(path: Path) -> dict[str, list[Image.Image]]:
    """Reads the pictures of a sheet again, by the label of their row, in the size in which they were drawn.

    Empty for a sheet that is missing or damaged, so that whoever shows it can go on, and for one that does not say
    where its pictures are, such as one of an earlier version.
    """
    try:
        return _pictures_of(path)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):  # what Pillow and a broken layout raise
        return {}


def _pictures_of(path: Path) -> dict[str, list[Image.Image]]:
    with Image.open(path) as sheet:
        text = sheet.info.get(LAYOUT)
        if text is None:
            return {}
        layout: dict[str, Any] = json.loads(text)
        (left, top), (across, down) = layout["origin"], layout["step"]
        width, height = layout["size"]
        found: dict[str, list[Image.Image]] = {}
        for number, (label, count) in enumerate(zip(layout["labels"], layout["rows"], strict=False)):
            corners = [(left + column * across, top + number * down) for column in range(count)]
            found[label] = [
                sheet.crop((x, y, x + width, y + height)).convert("RGB").resize(layout["drawn"], Image.Resampling.BOX)
                for x, y in corners
            ]
    return found


def _extent(draw: ImageDraw.ImageDraw, text: str, font: Any) -> tuple[int, int]:
    if not text:
        return 0, 0
    left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font)
    return int(right - left) + 1, int(bottom - top) + 1


def _wrapped(text: str, font: Any, width: int) -> str:
    """Breaks a text into lines of at most a width, between words where it can."""
    lines = [""]
    for word in text.split():
        if lines[-1] and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return "\n".join(lines)
