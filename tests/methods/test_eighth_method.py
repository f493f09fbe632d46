"""A method is a class and a configuration: one in a temporary folder runs, goes on, and is undone like the others."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.pipeline import load_pipeline
from tests.runs.learning import arguments, write_sequence

METHOD = '''
import torch
from torch import nn

from cns_lightning.methods.base import Method, ParameterGroup
from cns_lightning.methods.deltas import SparseDelta
from cns_lightning.neurons.mask import NeuronMask


class Biggest(Method):
    """Trains the largest tenth of every key and value matrix, and the token."""

    display_name = "the biggest weights"

    def __init__(self, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.learning_rate = learning_rate

    def start_stage(self, context) -> None:
        super().start_stage(context)
        self.token = nn.ParameterList(context.tokens.train(context.concept.token))
        tops = {name: weight.abs() >= weight.abs().quantile(0.9) for name, weight in context.base_weights.items()}
        self.mask = NeuronMask.from_bools(tops)
        self.delta = SparseDelta(context.weights, self.mask, context.base.device)

    def parameter_groups(self):
        return [
            ParameterGroup("weights", [self.delta.values], self.learning_rate),
            ParameterGroup("token", list(self.token), self.learning_rate),
        ]

    def trained_weights(self):
        return self.delta.weights()

    def finish_stage(self):
        return self.record(self.mask, self.delta.values.detach(), list(self.token))
'''


def test_it_runs_goes_on_and_is_undone(tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "biggest_weights.py").write_text(METHOD, "utf-8")
    config = tmp_path / "biggest.yaml"
    config.write_text("model: {method: {class_path: biggest_weights.Biggest}}\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    sequence, run = write_sequence(tmp_path / "sequence", ["cat", "dog"]), tmp_path / "run"
    command = [str(config) if each.startswith("configs/methods/") else each
               for each in arguments(tiny_base_model, sequence, run)]  # fmt: skip
    assert main(command) == 0
    assert main(["concepts", "--run", str(run), "--verify"]) == 0
    kept = (run / "registry" / "001-new2.safetensors").read_bytes()
    base, learned = BaseModel.load(str(tiny_base_model)), load_pipeline(run)
    now = key_value_projections(learned.unet)
    for name, projection in key_value_projections(base.unet).items():
        outside = projection.weight.abs() < projection.weight.abs().quantile(0.9)
        assert torch.equal(projection.weight[outside], now[name].weight[outside])
        assert not torch.equal(projection.weight, now[name].weight)
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    assert main(command) == 0
    assert (run / "registry" / "001-new2.safetensors").read_bytes() == kept


@pytest.mark.slow
def test_it_is_found_and_meets_the_contract_where_its_two_files_lie(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    for name in ("cns_lightning", "callbacks", "configs", "tests"):
        shutil.copytree(root / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    (tmp_path / "cns_lightning" / "methods" / "biggest.py").write_text(f'"""The largest weights."""\n{METHOD}', "utf-8")
    config = (
        "model: {method: {class_path: cns_lightning.methods.biggest.Biggest, init_args: {learning_rate: 1.0e-3}}}\n"
    )
    (tmp_path / "configs" / "methods" / "biggest.yaml").write_text(config, "utf-8")
    code = (
        "from cns_lightning.methods.discovery import display_name, method_configs\n"
        "assert 'biggest' in method_configs() and display_name('biggest') == 'the biggest weights'\n"
        "import pytest, sys; sys.exit(pytest.main(['tests/methods/test_contract.py', '-k', 'biggest']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    promises = (tmp_path / "tests" / "methods" / "test_contract.py").read_text("utf-8").count("\ndef test_")
    assert re.search(rf"^\.{{{promises}}} ", done.stdout, re.MULTILINE), done.stdout
