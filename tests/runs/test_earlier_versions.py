"""Runs that an earlier version began go on: no schedule in the checkpoint, no MaskFreezing, formats 1 and 2."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save

from cns_lightning.cli.main import main
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.checkpoint_file import SealedCheckpointIO
from cns_lightning.storage import read_json, read_tensors, sha256_of, tensor_bytes, write_json
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt

FALLING = ("--model.method.learning_rate_falls", "true", "--metrics.every_steps", "1", "--checkpoint.every_steps", "1")


def test_falling_rates_go_on_from_a_checkpoint_without_a_schedule(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = write_sequence(tmp_path / "one", ["cat"])
    whole, other = (arguments(tiny_base_model, sequence, tmp_path / name, CALLBACK, *FALLING, steps=4) for name in "ab")
    assert main(whole) == 0
    monkeypatch.setattr(StopAt, "step", 2)
    with pytest.raises(SystemExit):
        main(other)
    monkeypatch.setattr(StopAt, "step", None)
    path = tmp_path / "b" / "checkpoints" / "last.ckpt"
    state: dict[str, Any] = SealedCheckpointIO().load_checkpoint(path)
    assert state["continual"]["step"] == 2
    # As it was written: the rates with which the last step was taken, and those of the stage's beginning beside them.
    state["lr_schedulers"] = []
    for group in state["optimizer_states"][0]["param_groups"]:
        group["full_rate"] = group.pop("initial_lr")
        group["lr"] = group["full_rate"] * (1 - 1 / 4)
    SealedCheckpointIO().save_checkpoint(state, path)
    assert main(other) == 0
    for name in ("registry/000-new1.safetensors", "metrics.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_run_begun_without_mask_freezing_goes_on_with_it(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "one", ["cat", "dog"]), tmp_path / "run"
    command = arguments(tiny_base_model, sequence, run)
    assert main(command) == 0
    content = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    assert not any("MaskFreezing" in str(value) for value in content["settings"].values())
    scoring = {"class_path": "cns_lightning.callbacks.importance_scoring.ImportanceScoring"}
    without = tmp_path / "without.yaml"
    without.write_text(yaml.safe_dump({"trainer": {"callbacks": [scoring]}}), "utf-8")
    capsys.readouterr()
    assert main([*command, "--config", str(without), "--run", str(tmp_path / "other")]) == 2
    assert "has no MaskFreezing, which arms every stage of ConceptNeuronSelection" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    # As it was kept then.
    content["settings"]["trainer.callbacks[1].class_path"] = "cns_lightning.callbacks.mask_freezing.MaskFreezing"
    (run / "config.yaml").write_text(yaml.safe_dump(content), "utf-8")
    assert main(command) == 0


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_registry_of_an_earlier_format_is_drawn_from_verified_and_learned_on(
    version: str, tiny_base_model: Path, tmp_path: Path
) -> None:
    longer = write_sequence(tmp_path / "two", ["cat", "dog"])
    content = yaml.safe_load(longer.read_text("utf-8"))
    shorter = longer.with_name("shorter.yaml")
    shorter.write_text(yaml.safe_dump({**content, "concepts": content["concepts"][:1]}), "utf-8")
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert main(arguments(tiny_base_model, shorter, run)) == 0
    learned = (run / "registry" / "000-new1.safetensors").read_bytes()
    _as_format(version, run / "registry")
    assert (run / "registry" / "000-new1.safetensors").read_bytes() != learned
    assert main(["concepts", "--run", str(run), "--verify"]) == 0
    assert main(arguments(tiny_base_model, longer, run)) == 0
    assert main(arguments(tiny_base_model, longer, whole)) == 0
    assert read_json(run / "registry" / "registry.json")["format_version"] == 3
    assert (run / "registry" / "001-new2.safetensors").read_bytes() == (
        whole / "registry" / "001-new2.safetensors"
    ).read_bytes()
    ours, theirs = (NeuronRegistry.load(each / "registry").weights() for each in (run, whole))
    assert all(bool((ours[name] == theirs[name]).all()) for name in theirs)
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0


def _as_format(version: str, folder: Path) -> None:
    """Writes the files of a registry as earlier versions did: a bit for every entry, 1 with a key for every fact."""
    registry, index = NeuronRegistry.load(folder), read_json(folder / "registry.json")
    masks = [*(record.mask for record in registry.records), registry.general_mask()]
    index["format_version"] = int(version)
    for entry, mask in zip([*index["concepts"], index["general"]], masks, strict=True):
        path = folder / entry["file"]
        tensors, facts = read_tensors(path)
        assert mask is not None
        del facts["mask"], tensors["mask/packed"], tensors["mask/columns"]
        tensors |= {f"mask/{name}": tensor for name, tensor in mask.to_tensors().items()}
        facts["format_version"] = version
        path.write_bytes(save(tensors, facts) if version == "1" else tensor_bytes(tensors, facts))
        header = path.read_bytes()
        named = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
        assert ("facts" in named) == (version == "2")
        entry["sha256"], entry["bytes"] = sha256_of(path), path.stat().st_size
    write_json(folder / "registry.json", index)


def test_an_argument_that_the_earlier_version_lacked_must_have_its_default(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "one", ["cat"]), tmp_path / "run"
    command = arguments(tiny_base_model, sequence, run, "--samples.pictures", "0", steps=1)
    assert main(command) == 0
    content = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    unknown_then = ("trainer.callbacks[0].init_args.neurons", "data.noise_offset", "data.augmentation.flip")
    for key in unknown_then:
        del content["settings"][key]
    (run / "config.yaml").write_text(yaml.safe_dump(content), "utf-8")
    assert main(command) == 0
    (run / "config.yaml").write_text(yaml.safe_dump(content), "utf-8")
    capsys.readouterr()
    assert main([*command, "--data.noise_offset", "0.1"]) == 2
    assert "data.noise_offset was 'not set' and is 0.1" in capsys.readouterr().err
