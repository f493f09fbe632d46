"""The page on adding a method runs as it stands there, on two concepts and for two steps."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.experiments.comparison import Comparison
from cns_lightning.pipeline import load_pipeline
from tests.docs.documents import ROOT, blocks, commands, read, words
from tests.runs.learning import write_sequence

PAGE = read("docs/new-method.md")
FEWER = "--steps 2 --samples.steps 2 --samples.pictures 1 --data.augmentation.variants 2 --metrics.every_steps 1"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,), (config, compared) = blocks(PAGE, "python"), blocks(PAGE, "yaml")
    (tmp_path / "values_only.py").write_text(code, "utf-8")
    (tmp_path / "values_only.yaml").write_text(config, "utf-8")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    sequence = write_sequence(tmp_path / "sequence", ["cat", "dog"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m` does
    (command,) = commands(PAGE)
    fit = [str(sequence) if word == "miniature_set1" else word for word in words(command)] + FEWER.split()
    assert main(fit) == 0

    run = Path("runs/values_only")
    base, pipe = key_value_projections(BaseModel.load("miniature").unet), load_pipeline(run)
    learned: dict[str, Any] = dict(pipe.unet.named_parameters())  # type: ignore[attr-defined]
    for name, projection in base.items():
        assert torch.equal(projection.weight, learned[name]) == name.endswith("to_k.weight"), name
    with (run / "metrics.csv").open() as file:
        penalties = [float(row["penalty"]) for row in csv.DictReader(file) if row["penalty"]]
    assert max(penalties) > 0

    # What comes without another line: proof, undo, and learning again to the same bits.
    assert main(["concepts", "--run", str(run), "--verify"]) == 0
    kept = (run / "registry" / "001-new2.safetensors").read_bytes()
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    assert main(fit) == 0
    assert (run / "registry" / "001-new2.safetensors").read_bytes() == kept

    experiment = {"stack": ["configs/base/miniature.yaml"], "sets": ["miniature_set1"], **yaml.safe_load(compared)}
    Path("experiment.yaml").write_text(yaml.safe_dump(experiment), "utf-8")
    assert Comparison.read(Path("experiment.yaml")).methods == {"values_only": ("values_only.yaml",)}


def test_the_page_names_every_door() -> None:
    from cns_lightning.methods.base import Method

    doors = {name for name, value in vars(Method).items() if not name.startswith("_") and name != "context"}
    missing = {name for name in doors - {"record", "display_name"} if f"`{name}`" not in PAGE}
    assert not missing
