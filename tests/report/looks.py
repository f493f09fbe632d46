"""What must hold of every page in a real browser, on a phone and on a desk, in light and dark, and on paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.browser import Browser

PHONE, DESK = 390, 1280
WHOLE_PICTURES = "[...document.images].filter(image => image.complete && image.naturalWidth > 0).length"
PICTURES = "document.images.length"
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
CELLS = (
    "[...document.querySelectorAll('table.sortable')[{table}].tBodies[0].rows]"
    ".map(row => row.cells[{column}].dataset.value)"
)
PRESS = "document.querySelectorAll('table.sortable')[{table}].querySelectorAll('button.sort')[{column}].click()"


def check_opens(browser: Browser, page: Path, width: int, scheme: str) -> None:
    """Opens a page: nothing is fetched, nothing goes wrong, every picture decodes, and it does not scroll sideways."""
    browser.requests.clear()
    browser.open(page, width, scheme)
    assert {url for url in browser.requests if not url.startswith("data:")} == {page.absolute().as_uri()}
    assert browser.problems == []
    assert browser.value(WHOLE_PICTURES) == browser.value(PICTURES) > 10
    assert browser.value(OVERFLOW) <= 0, "the page itself does not scroll sideways"
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def check_sorts(browser: Browser, column: int, table: int = 0) -> None:
    """Presses a heading of a sortable table twice: its numbers stand from the least up, then from the highest down."""
    numbers = []
    for _ in range(2):
        browser.value(PRESS.format(table=table, column=column))
        shown = browser.value(CELLS.format(table=table, column=column))
        numbers.append([float(value) for value in shown if value])
    assert len(numbers[0]) >= 2
    assert numbers[0] == sorted(numbers[0])
    assert numbers[1] == sorted(numbers[0], reverse=True)
