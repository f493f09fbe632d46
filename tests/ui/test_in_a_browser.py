"""The page in a real browser: drawing, boxes, stages; nothing leaves the machine, and Ctrl-C ends it."""

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from cns_lightning.cli.main import main
from tests.export.runs import write_run
from tests.report.browser import Browser, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs Chromium")

PHONE, DESK = 390, 1280
PICTURES = "[...document.querySelectorAll('#drawn img')].map(image => image.src)"
WHOLE = "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
COMMAND = "document.querySelector('#command textarea').value"
SAID = "document.querySelector('#said').innerText.trim()"
WIDTHS = "[document.documentElement.scrollWidth, window.innerWidth]"
PLACES = (
    *(".cns-card:nth-child(2)", ".cns-canvas .cns-hint", "#prompt textarea", "#seed textarea, #seed input"),
    *("#pictures input", "#steps input", "#guidance input", "#draw", "#command textarea"),
)
READY = f"{list(PLACES)!r}.every(place => document.querySelector(place))"
# Notes every attempt of the server to reach another machine, and refuses it.
GUARD = """
import socket, sys
connect = socket.socket.connect
def guarded(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        print("LEAVES", address, file=sys.stderr, flush=True)
        raise OSError("refused by the test")
    return connect(self, address)
socket.socket.connect = guarded
find = socket.getaddrinfo
def noted(host, *more, **others):
    if host not in ("127.0.0.1", "::1", "localhost", None):
        print("LEAVES", host, file=sys.stderr, flush=True)
    return find(host, *more, **others)
socket.getaddrinfo = noted
from cns_lightning.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass
class Served:
    """A page that is being served."""

    address: str
    process: subprocess.Popen[str]
    temporary: Path


@pytest.fixture(scope="module")
def served(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serves the page of a run of two made-up concepts, in a process of its own."""
    folder = tmp_path_factory.mktemp("ui")
    run = write_run(folder / "my family", tiny_base_model)
    (folder / "tmp").mkdir()
    words = ["ui", "--run", str(run), "--device", "cpu", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", GUARD, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address.startswith("http://127.0.0.1:"), process.communicate()
    yield Served(address, process, folder / "tmp")
    process.kill()
    process.wait()


@pytest.fixture
def browser(served: Served, tmp_path: Path) -> Iterator[Browser]:
    """Returns a browser on the page, and sees at the end that nothing went wrong or left the machine."""
    with Browser(tmp_path / "profile") as started:
        started.open(served.address, DESK)
        started.wait_for(READY)
        yield started
        elsewhere = {url for url in started.requests if not url.startswith((served.address, "data:", "blob:"))}
        assert elsewhere == set()
        assert started.problems == []


def fill(browser: Browser, place: str, text: str) -> None:
    """Replaces the text of a field, as typing does."""
    browser.value(f"(field => {{ field.focus(); field.select(); }})(document.querySelector({place!r}))")
    browser.write(text)


def press(browser: Browser, place: str) -> None:
    browser.value(f"document.querySelector({place!r}).click()")


def draw(browser: Browser) -> str:
    """Presses the button and returns the command once there are other pictures."""
    before = browser.value(PICTURES)
    press(browser, "#draw")
    browser.wait_for(f"{PICTURES}.length && String({PICTURES}) != {','.join(before)!r} && {WHOLE}")
    browser.wait_for(f"{COMMAND} != ''")
    return browser.value(COMMAND)


def fetched(browser: Browser) -> list[bytes]:
    """Returns the pixels of the pictures on the page."""
    found = []
    for url in dict.fromkeys(browser.value(PICTURES)):
        with urllib.request.urlopen(url) as answer, Image.open(io.BytesIO(answer.read())) as picture:
            assert picture.format == "PNG"
            found.append(picture.convert("RGB").tobytes())
    return found


def from_the_shell(command: str, folder: Path) -> list[bytes]:
    """Returns the pixels that a command line of the page draws, by seed."""
    shutil.rmtree(folder, ignore_errors=True)
    assert main([*shlex.split(command)[3:], "--folder", str(folder)]) == 0
    found = []
    for path in sorted(folder.iterdir(), key=lambda path: int(path.stem.rsplit("-", 1)[1])):
        with Image.open(path) as picture:
            found.append(picture.tobytes())
    return found


@pytest.mark.slow
def test_draw_draw_a_box_and_go_back_a_stage(browser: Browser, tmp_path: Path) -> None:
    fill(browser, "#steps input", "2")
    fill(browser, "#pictures input", "2")
    fill(browser, "#prompt textarea", "two")
    press(browser, ".cns-card:first-child .cns-insert")
    command = draw(browser)
    assert "--prompt 'two <new1> cat' --n 2 --seed 0 --steps 2" in command
    plain = fetched(browser)
    assert plain == from_the_shell(command, tmp_path / "plain")

    left, top, side = browser.value(
        "(box => [box.left, box.top, box.width])(document.querySelector('.cns-canvas').getBoundingClientRect())"
    )
    browser.drag((left + 0.5 * side, top + 0.1 * side), (left + 0.9 * side, top + 0.8 * side))
    assert browser.value("document.activeElement.placeholder") == "what is in this box"
    press(browser, ".cns-card:nth-child(2) .cns-insert")
    assert browser.value("document.querySelector('.cns-row textarea').value") == "<new2> cat"
    command = draw(browser)
    (region,) = [word for word in shlex.split(command) if word.endswith(":<new2> cat")]
    sides = [float(number) for number in region.split(":")[0].split(",")]
    assert sides == pytest.approx([0.5, 0.1, 0.9, 0.8], abs=0.01)
    boxed = fetched(browser)
    assert boxed == from_the_shell(command, tmp_path / "boxed")
    assert boxed != plain
    assert browser.value("getComputedStyle(document.querySelector('.cns-canvas')).backgroundImage").startswith("url(")

    slide = "(field => {{ field.value = {}; field.dispatchEvent(new Event('input')); }})(document.querySelector({!r}))"
    browser.value(slide.format(1, ".cns-stage input"))
    assert browser.value("document.querySelector('.cns-stage output').innerText") == "1 of 2: <new1>"
    press(browser, "#draw")
    said = browser.wait_for(SAID)
    assert said.startswith("box 1: names <new2>, which was learned after <new1>. Move the slider of stages")
    assert fetched(browser) == boxed, "what was drawn before stays"
    press(browser, ".cns-remove")
    browser.value(slide.format(0.5, ".cns-card:first-child .cns-strength input"))
    command = draw(browser)
    assert "--strength '<new1>=0.5' --upto '<new1>'" in command
    assert browser.value(SAID) == ""
    earlier = fetched(browser)
    assert earlier == from_the_shell(command, tmp_path / "earlier")
    assert earlier not in (plain, boxed)


@pytest.mark.slow
def test_keys_and_numbers_do_what_the_mouse_does(browser: Browser) -> None:
    press(browser, ".cns-add")
    browser.write("a <new2> cat")
    browser.value("document.querySelector('.cns-box').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    fill(browser, ".cns-sides label:nth-child(2) input", "0.25")
    fill(browser, "#steps input", "1")
    fill(browser, "#pictures input", "1")
    assert "--region '0.01,0.25,0.51,1:a <new2> cat'" in draw(browser)
    fill(browser, "#seed input, #seed textarea", "many")
    press(browser, "#draw")
    assert browser.wait_for(SAID).startswith("seed: is many. Give a whole number from 0 to")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "light"), (PHONE, "dark"), (DESK, "dark")])
def test_it_fits_the_window(browser: Browser, served: Served, width: int, scheme: str) -> None:
    browser.open(served.address, width, scheme)
    browser.wait_for(f"{READY} && {WHOLE}")
    assert max(browser.value(WIDTHS)) <= width, "the page neither scrolls sideways nor is it shrunk to fit"
    bright = browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert bright == (scheme == "light")


@pytest.mark.slow
def test_it_leaves_nothing_and_ends_well(served: Served) -> None:
    """Comes last: it ends the server that the tests above have used."""
    served.process.send_signal(signal.SIGINT)
    out, err = served.process.communicate(timeout=30)
    assert served.process.returncode == 0, err
    assert "LEAVES" not in err
    assert "Traceback" not in out + err
    assert not list(served.temporary.iterdir()), "pictures lie in a temporary folder, which is removed"
