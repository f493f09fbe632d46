"""Reads pages that reports write, for tests."""

import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image


class Page(HTMLParser):
    """Collects what a page refers to, and the texts of its tables by identifier."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._table: list[list[str]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes references, images, tables, rows and cells."""
        given = dict(attrs)
        self.references += [value for name, value in attrs if value and name in ("src", "href", "xlink:href", "action")]
        if tag == "img":
            self.images.append(given)
        if tag == "table":
            self._table = self.tables.setdefault(given.get("id") or "", [])
        if tag == "tr" and self._table is not None:
            self._table.append([])
        if tag in ("td", "th") and self._table:
            self._table[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """Ends the table."""
        if tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        """Adds text to the cell."""
        if self._table and self._table[-1]:
            self._table[-1][-1] += data.strip()


def check_whole_in_itself(text: str) -> Page:
    """Reads a page and makes sure that nothing is fetched, and that every picture can be decoded and has a text."""
    found = Page(text)
    assert all(each.startswith(("data:", "#")) for each in found.references), found.references
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", text)
    assert "<script src" not in text
    for image in found.images:
        assert image["alt"]
        content = base64.b64decode((image["src"] or "").split(",", 1)[1])
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    return found
