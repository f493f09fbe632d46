"""Two processes on one machine: the same weights as one, left together, continued exactly."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.metrics_file import read_rows
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import PLAN

CALLBACK = "--trainer.callbacks+=tests.runs.stop_at.StopAt"
# Of float32 sums in another order, through 2 x 4 steps of AdamW.
TOLERANCE = 1e-5


def two_processes(base: Path, sequence: Path, run: Path, plan: str = "0:0:SIGTERM", *more: str) -> tuple[int, float]:
    """Runs fit in two processes; gives the exit code and the seconds it took after the plan's signal at most."""
    command = [sys.executable, "-m", "cns_lightning"]
    command += arguments(base, sequence, run, "--trainer.devices", "2", CALLBACK, *more, steps=4)
    environment = {**os.environ, PLAN: plan, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    ended = time.time()
    newest = (run / "log.txt").stat().st_mtime if (run / "log.txt").exists() else ended
    assert done.returncode != 2, done.stderr
    return done.returncode, ended - newest


@pytest.fixture(scope="module")
def pair(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Gives base model, sequence file and run folder of an uninterrupted run in two processes."""
    folder = tmp_path_factory.mktemp("processes")
    sequence = write_sequence(folder, ["cat", "dog"])
    assert two_processes(tiny_base_model, sequence, folder / "run")[0] == 0
    return tiny_base_model, sequence, folder / "run"


def test_two_processes_learn_what_one_learns(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, sequence, run = pair
    other = tmp_path / "run"
    assert main(arguments(base, sequence, other, "--data.batch_size", "4", steps=4)) == 0
    one, two = NeuronRegistry.load(other / "registry"), NeuronRegistry.load(run / "registry")
    for token in one.tokens:
        assert torch.equal(one.embedding(token), two.embedding(token)) or torch.allclose(
            one.embedding(token), two.embedding(token), rtol=0, atol=TOLERANCE
        )
        first, second = one.mask(token), two.mask(token)
        assert all(torch.equal(first[name], second[name]) for name in first)
    after, weights = two.weights(), one.weights()
    assert all(torch.allclose(weights[name], after[name], rtol=0, atol=TOLERANCE) for name in weights)
    losses = [[float(row["loss"]) for row in read_rows(folder / "metrics.csv")] for folder in (other, run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("plan", ["1:3:SIGKILL", "0:6:SIGKILL", "1:6:SIGTERM"])
def test_a_stopped_pair_goes_on_exactly(pair: tuple[Path, Path, Path], tmp_path: Path, plan: str) -> None:
    base, sequence, run = pair
    other, saving = tmp_path / "run", ("--checkpoint.every_steps", "1")
    code, seconds = two_processes(base, sequence, other, plan, *saving)
    if plan.endswith("SIGTERM"):
        assert code == 128 + signal.SIGTERM
    else:
        assert code != 0
        # Far below the half hour after which a collective gives up by itself.
        assert seconds < 30
    assert two_processes(base, sequence, other, "0:0:SIGTERM", *saving)[0] == 0
    for name in ("registry/000-new1.safetensors", "registry/001-new2.safetensors", "metrics.csv"):
        assert (other / name).read_bytes() == (run / name).read_bytes()
    for name in ("samples/stage-0.png", "samples/stage-1.png"):
        assert (other / name).read_bytes() == (run / name).read_bytes()
