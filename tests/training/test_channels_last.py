"""A frozen base model in half precision and channels_last: learned on, stopped and continued to the same bits."""

from pathlib import Path

import pytest
import torch
import yaml

from cns_lightning.cli.main import main
from cns_lightning.configuration.parser import checked_configuration
from cns_lightning.module import ContinualPersonalization
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt

HALF = ("--model.base_dtype", "bfloat16", "--model.channels_last", "true", "--trainer.precision", "bf16-mixed")


def test_a_stopped_run_ends_as_an_uninterrupted_one(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    load = ContinualPersonalization._load

    def noted(module: ContinualPersonalization) -> None:
        load(module)
        seen.append(module.base.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last))

    monkeypatch.setattr(ContinualPersonalization, "_load", noted)
    sequence = write_sequence(tmp_path / "sequence", ["cat", "dog"])
    whole, other = (arguments(tiny_base_model, sequence, tmp_path / name, CALLBACK, *HALF) for name in "ab")
    assert main(whole) == 0
    monkeypatch.setattr(StopAt, "step", 5)
    with pytest.raises(SystemExit):
        main(other)
    monkeypatch.setattr(StopAt, "step", None)
    assert main(other) == 0
    assert seen == [True, True, True]
    for name in ("registry/registry.json", "metrics.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_layout_of_a_run_stays(tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = arguments(tiny_base_model, write_sequence(tmp_path / "sequence", ["cat"]), tmp_path / "run", steps=1)
    assert main(command) == 0
    path = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(path.read_text("utf-8"))
    # A run of an earlier version, which did not know the keys, goes on where they have their defaults, and only there.
    for key in ("model.channels_last", "training.compile", "training.cuda_graph"):
        assert content["settings"].pop(key) is False
    path.write_text(yaml.safe_dump(content), "utf-8")
    assert main([*command, "--model.channels_last", "true"]) == 2
    assert "model.channels_last was 'not set' and is True" in capsys.readouterr().err
    assert main(command) == 0


def test_the_shipped_stack(tmp_path: Path) -> None:
    files = ("base/sd15", "methods/cns", "hardware/one_gpu_half")
    words = [word for name in files for word in ("--config", f"configs/{name}.yaml")]
    more = ("--data.sequence", "miniature_set1", "--run", str(tmp_path), "--trainer.accelerator", "cpu")
    model = checked_configuration([*words, *more]).model
    assert (model.base_dtype, model.channels_last) == ("bfloat16", True)
