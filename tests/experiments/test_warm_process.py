"""Commands forked from one process: each has its own output, exit code and end."""

import os
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from cns_lightning.experiments.child_processes import ChildProcesses
from cns_lightning.experiments.execution import Place
from cns_lightning.experiments.warm_process import IS_POSSIBLE, PROGRAM, WarmProcess

pytestmark = pytest.mark.skipif(not IS_POSSIBLE, reason="needs Linux")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmProcess]:
    """Returns a process that forks commands."""
    # Under nohup it would inherit, and its commands with it, that SIGHUP is ignored.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    started = WarmProcess(dict(os.environ), tmp_path_factory.mktemp("warm") / "imports.txt")
    signal.signal(signal.SIGHUP, before)
    yield started
    started.close()
    assert started.server.returncode == 0


def test_commands_have_their_own_output_and_exit_code(warm: WarmProcess, tmp_path: Path) -> None:
    first = warm.start(["--version"], tmp_path / "version.txt")
    assert first.wait() == 0
    second = warm.start(["nonsense"], tmp_path / "nonsense.txt")
    assert second.wait() == 2
    assert first.pid != second.pid
    assert (tmp_path / "version.txt").read_text("utf-8") == version("cns-lightning") + "\n"
    assert "is not a command" in (tmp_path / "nonsense.txt").read_text("utf-8")


def test_a_command_that_is_killed_says_so_and_the_next_one_runs(warm: WarmProcess, tmp_path: Path) -> None:
    # It reads what nobody writes.
    os.mkfifo(tmp_path / "pipe")
    waiting = warm.start(["compare", "--config", str(tmp_path / "pipe"), "--out", str(tmp_path)], tmp_path / "a.txt")
    waiting.kill()
    assert waiting.wait() == -9
    assert warm.start(["--version"], tmp_path / "b.txt").wait() == 0


def test_signals_to_all_processes_reach_the_command_alone(warm: WarmProcess, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = ["compare", "--config", str(tmp_path / "pipe"), "--out", str(tmp_path)]
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        waiting = warm.start(command, tmp_path / "a.txt")
        os.kill(warm.server.pid, number)
        os.kill(waiting.pid, number)
        assert waiting.wait() == -number
    assert warm.start(["--version"], tmp_path / "b.txt").wait() == 0


def test_a_process_that_is_gone_is_replaced(tmp_path: Path) -> None:
    place = Place(dict(os.environ), ChildProcesses())
    command = [*PROGRAM, "--version"]
    assert place.run(command, tmp_path / "a.txt") == 0
    first = place.warm
    assert first is not None
    first.server.kill()
    first.server.wait()
    with pytest.raises(OSError):  # noqa: PT011 - a broken pipe, or no answer
        place.run(command, tmp_path / "b.txt")
    assert place.run(command, tmp_path / "c.txt") == 0
    assert place.warm is not first
    first.close()
    place.close()
