"""Runs in two processes of one machine, as a user starts them."""

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.runs.learning import arguments
from tests.runs.stop_at import CALLBACK, PLAN

SAME = (
    "registry/000-new1.safetensors", "registry/001-new2.safetensors", "metrics.csv",
    "samples/stage-0.png", "samples/stage-1.png",
)  # fmt: skip


def in_two_processes(
    base: Path, sequence: Path, run: Path, plan: str, *more: str, method: str = "cns"
) -> subprocess.CompletedProcess[str]:
    """Runs fit in two processes with a plan of `StopAt`."""
    command = [sys.executable, "-m", "cns_lightning"]
    command += arguments(base, sequence, run, "--trainer.devices", "2", CALLBACK, *more, method=method, steps=4)
    environment = {**os.environ, PLAN: plan, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def two_processes(base: Path, sequence: Path, run: Path, plan: str = "0:0:SIGTERM", *more: str) -> tuple[int, float]:
    """Runs fit in two processes; gives the exit code and the seconds it took after the plan's signal at most."""
    done = in_two_processes(base, sequence, run, plan, *more)
    ended = time.time()
    newest = (run / "log.txt").stat().st_mtime if (run / "log.txt").exists() else ended
    assert done.returncode != 2, done.stderr
    return done.returncode, ended - newest


def assert_same(run: Path, other: Path) -> None:
    """Compares what two runs have learned and drawn, byte by byte."""
    for name in SAME:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
