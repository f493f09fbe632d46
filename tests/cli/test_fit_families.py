"""The whole run on SDXL's shapes and on a model that predicts velocities: learn, stop, go on, undo, draw."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from cns_lightning.cli.main import main
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt


@pytest.fixture(params=["sdxl", "sdxl in half precision", "velocity"])
def base(
    request: pytest.FixtureRequest, tiny_base_model: Path, tiny_xl_base_model: Path, tmp_path: Path
) -> tuple[Path, list[str]]:
    """Returns a base model, and what its shipped configuration asks for besides."""
    if request.param == "sdxl":
        return tiny_xl_base_model, []
    if request.param == "sdxl in half precision":
        return tiny_xl_base_model, ["--model.base_dtype", "bfloat16", "--model.gradient_checkpointing", "true"]
    folder = tmp_path / "velocity"
    shutil.copytree(tiny_base_model, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(content | {"prediction_type": "v_prediction"}), "utf-8")
    return folder, []


def test_learn_stop_go_on_undo_and_draw(
    base: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, more = base
    sequence = write_sequence(tmp_path / "sequence", ["cat", "dog"])
    whole, other = tmp_path / "whole", tmp_path / "other"
    assert main(arguments(model, sequence, whole, CALLBACK, *more)) == 0
    for step in (2, 5):
        monkeypatch.setattr(StopAt, "step", step)
        with pytest.raises(SystemExit) as stopped:
            main(arguments(model, sequence, other, CALLBACK, *more))
        assert stopped.value.code == 128 + signal.SIGTERM
    monkeypatch.setattr(StopAt, "step", None)
    assert main(arguments(model, sequence, other, CALLBACK, *more)) == 0
    for name in ("registry/000-new1.safetensors", "registry/001-new2.safetensors", "samples/stage-1.png"):
        assert (other / name).read_bytes() == (whole / name).read_bytes(), name
    registry = NeuronRegistry.load(whole / "registry")
    encoders = 2 if "xl" in model.name else 1
    for token in registry.tokens:
        record = registry.record(token)
        assert len(record.embeddings) == encoders
        assert record.values.abs().sum() > 0
    drawn = {}
    for name, words in {"both": [], "first": ["--upto", "<new1>"]}.items():
        out = tmp_path / f"{name}.png"
        words += ["--prompt", "a photo of a <new1> cat", "--n", "1", "--steps", "2", "--out", str(out)]
        assert main(["generate", "--run", str(whole), *words]) == 0
        drawn[name] = out.read_bytes()
    assert drawn["both"] != drawn["first"]
    assert main(["concepts", "--run", str(whole), "--rollback", "<new1>"]) == 0
    assert main(arguments(model, sequence, whole, CALLBACK, *more)) == 0
    name = "registry/001-new2.safetensors"
    assert (other / name).read_bytes() == (whole / name).read_bytes()
