"""The commands of README.md and of the first hour run as they stand there: on the miniature, with fewer steps."""

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import read_weights
from cns_lightning.pipeline import load_pipeline
from tests.docs.documents import ROOT, blocks, commands, read, words

pytestmark = pytest.mark.slow

HERE = {
    # The reader's model and device.
    "configs/base/sd15.yaml": "configs/base/miniature.yaml",
    "configs/hardware/one_gpu.yaml": "configs/hardware/cpu.yaml",
}
FEWER = {
    "demo": "--steps 2 --samples.steps 2 --samples.pictures 2 --monitor.pictures 0 --data.augmentation.variants 2",
    "fit": "--steps 2 --samples.steps 2 --samples.pictures 2 --data.augmentation.variants 2",
    "generate": "--steps 2",
    "test": "--pictures 1 --matrix-pictures 0 --look-alikes 1 --steps 2",
}
ANSWERS = {"init": "--class-word cat --class-word mug"}
"""What the reader types when `init` asks."""
PHOTOS = {"photos/momo": "mint_ringed_dog", "photos/mug": "magenta_half_cup"}
NOT_RUN = ("make setup",)
"""Commands that need a network."""


def demo_target() -> list[str]:
    """Returns the commands of ``make demo``."""
    body = re.search(r"^demo:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    assert body is not None
    lines = body.group(1).replace("\\\n", " ").replace("$(BIN)/", ".venv/bin/").splitlines()
    return [line.strip() for line in lines if not line.strip().startswith("@echo")]


def follow(document: str, place: Path) -> list[str]:
    """Runs the commands of a document in their order in a folder like the repository; returns those that ran."""
    (place / "configs").symlink_to(ROOT / "configs")
    for folder, name in PHOTOS.items():
        shutil.copytree(ROOT / "configs" / "sequences" / "miniature_set1" / name, place / folder)
    before, ran = Path.cwd(), []
    os.chdir(place)
    try:
        for line in commands(read(document)):
            if line in NOT_RUN:
                continue
            for command in demo_target() if line == "make demo" else [line]:
                name, *rest = words(command)
                more = shlex.split(ANSWERS.get(name, "")) + shlex.split(FEWER.get(name, ""))
                assert main([name, *(HERE.get(word, word) for word in rest), *more]) == 0, command
                ran.append(command)
    finally:
        os.chdir(before)
    return ran


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    place = tmp_path_factory.mktemp("readme")
    return place, follow("README.md", place)


def test_readme(readme: tuple[Path, list[str]]) -> None:
    place, ran = readme
    assert [words(each)[0] for each in ran] == [
        "demo",
        *("generate", "concepts", "init", "fit"),
    ]
    assert (place / "pictures.png").exists()
    assert (place / "runs" / "demo" / "report.html").exists()
    assert (place / "runs" / "family" / "report.html").exists()


def test_first_hour(tmp_path: Path) -> None:
    ran = follow("docs/first-hour.md", tmp_path)
    assert [words(each)[0] for each in ran] == [
        *("init", "doctor", "fit", "generate", "concepts", "test", "export"),
    ]
    # The page shows the beginning of what `init` writes.
    shown = blocks(read("docs/first-hour.md"), "yaml")[0]
    assert shown.rstrip("\n") in (tmp_path / "family.yaml").read_text("utf-8")
    assert (tmp_path / "momo.png").exists()
    assert (tmp_path / "runs" / "family" / "evaluation" / "scores.json").exists()
    assert (tmp_path / "exports" / "family" / "family.safetensors").exists()


def test_jobs_of_the_page_on_slurm_can_be_written(
    readme: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("configs", "photos", "family.yaml"):
        (tmp_path / name).symlink_to(readme[0] / name)
    monkeypatch.chdir(tmp_path)
    for line in commands(read("docs/slurm.md")):
        assert main([*words(line), "--dry-run"]) == 0, line
        assert "srun" in capsys.readouterr().out


def test_base_and_registry_make_the_model_as_the_page_on_formats_says(readme: tuple[Path, list[str]]) -> None:
    (code,) = blocks(read("docs/formats.md"), "python")
    written: dict[str, Any] = {}
    exec(compile(code, "docs/formats.md", "exec"), written)
    run = readme[0] / "runs" / "demo"
    base = read_weights(key_value_projections(BaseModel.load("miniature").unet))
    pretrained = {name: weight.numpy() for name, weight in base.items()}
    made: dict[str, numpy.ndarray] = written["learned_weights"](pretrained, run / "registry")
    pipe: Any = load_pipeline(run)
    held = dict(pipe.unet.named_parameters())
    assert len(made) > 4
    for name, weight in made.items():
        assert torch.equal(torch.from_numpy(weight), held[name])
        assert (weight != pretrained[name]).any()
