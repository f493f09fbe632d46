"""Pages of reports in a real browser: nothing is fetched, nothing goes wrong, every picture decodes, tables sort."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cns_lightning.report.report import page
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import write_json
from tests.report.browser import Browser, chromium
from tests.report.looks import DESK, PHONE, check_opens, check_sorts
from tests.runs.learning import learn

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs Chromium")

LEAST_LETTERS = (
    "Math.min(...[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height))"
)
STRIP_OVERFLOW = (
    "document.querySelector('#strip').scrollWidth - document.querySelector('#strip').parentElement.clientWidth"
)
PHOTOS_SHOWN = "[...document.querySelectorAll('#strip .photo img')].filter(image => image.offsetWidth > 0).length"
ON_PAPER = 1047  # pixels of CSS that an A4 sheet holds where Chromium shrinks a page as far as it does
WIDEST = (
    "Math.max(...[...document.querySelectorAll('table, svg, img')].map(each => each.getBoundingClientRect().right))"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Returns a running browser."""
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def report(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the page of a run of two concepts with scores."""
    run = learn(
        "cns", tiny_base_model, tmp_path_factory.mktemp("report"), "--samples.base_prompts", "[a house, a boat]"
    )
    identity = {"top1": 0.75, "confusion": {"<new1>": {"<new1>": 0.5, "any cat": 0.5}, "<new2>": {"<new2>": 1.0}}}
    write_json(RunFolder(run).evaluation / "scores.json", {
        "learned": ["<new1>", "<new2>"], "matrix": [[0.6], [0.55, 0.7]], "identity": identity,
    })  # fmt: skip
    path = run / "report.html"
    path.write_text(page(RunFolder(run)), "utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme"), itertools.product((PHONE, DESK), ("light", "dark")))
def test_nothing_leaves_and_everything_is_there(report: Path, browser: Browser, width: int, scheme: str) -> None:
    check_opens(browser, report, width, scheme)
    assert browser.value("document.querySelectorAll('svg text').length") > 10
    assert browser.value(LEAST_LETTERS) > 8, "letters of charts can be read"


def test_many_stages_fit_on_paper(report: Path, browser: Browser, tmp_path: Path) -> None:
    text = report.read_text("utf-8")
    cell = re.search(r"<td><img[^>]*after concept 2[^>]*>.*?</td>", text, re.S)
    assert cell is not None
    many = tmp_path / "many.html"
    many.write_text(text.replace(cell[0], cell[0] * 11).replace("<th>after 2</th>", "<th>after 2</th>" * 11), "utf-8")
    browser.open(many, ON_PAPER)
    assert browser.value(STRIP_OVERFLOW) > 0, "on a screen it scrolls"
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.value(WIDEST) <= ON_PAPER
    browser.call("Emulation.setEmulatedMedia", media="")


def test_on_a_phone_every_stage_fits_beside_one_photo(report: Path, browser: Browser) -> None:
    browser.open(report, PHONE)
    assert browser.value(STRIP_OVERFLOW) <= 0
    assert browser.value(PHOTOS_SHOWN) == 2
    browser.open(report, DESK)
    assert browser.value(PHOTOS_SHOWN) > 2


def test_a_table_sorts_up_and_down_and_a_slider_moves_the_line(report: Path, browser: Browser) -> None:
    browser.open(report, DESK)
    check_sorts(browser, column=4)
    browser.value(
        "{const input = document.querySelector('.pair input'); input.value = 20; "
        "input.dispatchEvent(new Event('input'))}"
    )
    shown = "getComputedStyle(document.querySelector('.both img + img')).clipPath"
    assert browser.value(shown) == "inset(0px 0px 0px 20%)"
    assert browser.problems == []
