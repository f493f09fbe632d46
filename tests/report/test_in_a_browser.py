"""Pages of reports in a real browser: nothing is fetched, nothing goes wrong, every picture decodes, tables sort."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cns_lightning.report.report import page
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import write_json
from tests.report.browser import Browser, chromium
from tests.runs.learning import learn

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs Chromium")

PHONE, DESK = 390, 1280
WHOLE_PICTURES = "[...document.images].filter(image => image.complete && image.naturalWidth > 0).length"
PICTURES = "document.images.length"
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
LEAST_LETTERS = (
    "Math.min(...[...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height))"
)
STRIP_OVERFLOW = (
    "document.querySelector('#strip').scrollWidth - document.querySelector('#strip').parentElement.clientWidth"
)
PHOTOS_SHOWN = "[...document.querySelectorAll('#strip .photo img')].filter(image => image.offsetWidth > 0).length"
CELLS = "[...document.querySelectorAll('#costs tbody tr')].map(row => row.cells[4].dataset.value)"
PRESS = "document.querySelectorAll('#costs button.sort')[4].click()"


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


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "light"), (DESK, "dark")])
def test_nothing_leaves_and_everything_is_there(report: Path, browser: Browser, width: int, scheme: str) -> None:
    browser.requests.clear()
    browser.open(report, width, scheme)
    assert {url for url in browser.requests if not url.startswith("data:")} == {report.absolute().as_uri()}
    assert browser.problems == []
    assert browser.value(WHOLE_PICTURES) == browser.value(PICTURES) > 10
    assert browser.value(OVERFLOW) <= 0, "the page itself does not scroll sideways"
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert browser.value("document.querySelectorAll('svg text').length") > 10
    assert browser.value(LEAST_LETTERS) > 8, "letters of charts can be read"


def test_on_a_phone_every_stage_fits_beside_one_photo(report: Path, browser: Browser) -> None:
    browser.open(report, PHONE)
    assert browser.value(STRIP_OVERFLOW) <= 0
    assert browser.value(PHOTOS_SHOWN) == 2
    browser.open(report, DESK)
    assert browser.value(PHOTOS_SHOWN) > 2


def test_a_table_sorts_up_and_down_and_a_slider_moves_the_line(report: Path, browser: Browser) -> None:
    browser.open(report, DESK)
    numbers = []
    for _ in range(2):
        browser.value(PRESS)
        numbers.append([float(value) for value in browser.value(CELLS)])
    assert numbers[0] == sorted(numbers[0])
    assert numbers[1] == sorted(numbers[0], reverse=True)
    assert len(numbers[0]) == 2
    browser.value(
        "{const input = document.querySelector('.pair input'); input.value = 20; "
        "input.dispatchEvent(new Event('input'))}"
    )
    shown = "getComputedStyle(document.querySelector('.both img + img')).clipPath"
    assert browser.value(shown) == "inset(0px 0px 0px 20%)"
    assert browser.problems == []
