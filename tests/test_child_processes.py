"""A signal that asks a program to stop reaches the processes it has started, and starts no others."""

import signal
import subprocess
import sys
from pathlib import Path

CHILD = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).write_text("saved"), sys.exit(143)))
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from cns_lightning.child_processes import ChildProcesses
children = ChildProcesses()
commands = [[sys.executable, "-c", sys.argv[1], path] for path in sys.argv[2:]]
with ThreadPoolExecutor(1) as pool, children.told_to_stop():
    print(list(pool.map(children.run, commands)))
"""


def test_children_are_told_and_waited_for(tmp_path: Path) -> None:
    paths = [tmp_path / "first", tmp_path / "second"]
    command = [sys.executable, "-c", PARENT, CHILD, *map(str, paths)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.send_signal(signal.SIGTERM)
        assert parent.stdout.read() == "[143, None]\n"
    assert paths[0].read_text() == "saved"
    assert not paths[1].exists()
