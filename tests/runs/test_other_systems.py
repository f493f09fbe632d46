"""What Windows lacks: without it the package imports, lists and undoes what was learned, and draws it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.learning import learn

# Hidden once the libraries are loaded, which have their own ways around.
WITHOUT = """
import os, signal, sys
import diffusers, jsonargparse, lightning.pytorch, lightning.pytorch.cli, psutil, torch.distributed, transformers
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer
import filelock
for name in ("fcntl", "resource"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGUSR1", "pthread_sigmask"):
    delattr(signal, name)
for name in ("killpg", "sched_getaffinity"):
    delattr(os, name)
from cns_lightning.callbacks import run_timer, stop_signals
from cns_lightning.cli.main import main
from cns_lightning.experiments import execution
assert len(stop_signals.SIGNALS) == 2
sys.exit(main(sys.argv[1:]))
"""


def without(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT, *words], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_run_is_listed_drawn_from_and_undone_without_what_only_unix_has(
    tiny_base_model: Path, tmp_path: Path
) -> None:
    run = learn("cns", tiny_base_model, tmp_path)
    for command in (
        ["concepts", "--run", str(run), "--verify"],
        ["generate", "--run", str(run), "--prompt", "a <new1> cat", "--steps", "2", "--n", "1"],
        ["concepts", "--run", str(run), "--rollback", "<new1>"],
    ):
        done = without(*command)
        assert done.returncode == 0, done.stderr
    assert list((run / "generated").glob("*.png"))
    assert not (run / "registry" / "001-new2.safetensors").exists()
