"""A signal that asks a program to stop reaches the processes it has started, and starts no others."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cns_lightning.experiments.child_processes import IMPATIENT

CHILD = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).write_text("saved"), sys.exit(143)))
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from cns_lightning.experiments.child_processes import ChildProcesses
children = ChildProcesses()
commands = [[sys.executable, "-c", sys.argv[1], path] for path in sys.argv[2:]]
with children.told_to_stop(), ThreadPoolExecutor(1) as pool:
    print(list(pool.map(children.run, commands)))
"""


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Lets a hang-up and Ctrl-C count where the tests run under nohup or behind an &: what they start would inherit."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _started(*paths: Path, child: str = CHILD) -> subprocess.Popen[str]:
    """Starts a program that runs children one after another; waits until the first is ready."""
    command = [sys.executable, "-c", PARENT, child, *map(str, paths)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    return parent


def _said(parent: subprocess.Popen[str]) -> str:
    with parent:
        assert parent.stdout is not None
        return parent.stdout.read()


def test_children_are_told_and_waited_for(tmp_path: Path) -> None:
    parent = _started(tmp_path / "first", tmp_path / "second")
    # As a terminal that closes sends it, twice in a row: that is no reason to cut anything off.
    parent.send_signal(signal.SIGHUP)
    parent.send_signal(signal.SIGHUP)
    assert _said(parent) == "[143, None]\n"
    assert (tmp_path / "first").read_text() == "saved"
    assert not (tmp_path / "second").exists()


def test_a_signal_that_was_ignored_stays_so(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        parent = _started(tmp_path / "first")
    finally:
        signal.signal(signal.SIGHUP, before)
    parent.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert parent.poll() is None
    parent.send_signal(signal.SIGTERM)
    assert _said(parent) == "[143]\n"


def test_a_second_ctrl_c_ends_what_does_not_end_by_itself(tmp_path: Path) -> None:
    parent = _started(tmp_path / "first", child=CHILD.replace("lambda *_: ", "lambda *_: 1 or "))
    parent.send_signal(signal.SIGINT)
    time.sleep(IMPATIENT + 0.5)
    assert parent.poll() is None
    parent.send_signal(signal.SIGINT)
    assert _said(parent) == "[-9]\n"
