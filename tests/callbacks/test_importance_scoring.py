"""Which neurons a stage trains, and which it trains as a control."""

from pathlib import Path
from typing import get_args

import pytest
import yaml

from cns_lightning.callbacks.importance_scoring import Neurons
from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.methods.discovery import method_configs
from cns_lightning.neurons.controls import random_neurons
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt

CONTROLS = [each for each in get_args(Neurons) if each != "concept"]


def _trained(base: Path, folder: Path, neurons: str) -> list[NeuronMask]:
    """Learns two concepts for two steps and returns the neurons of each."""
    callbacks = yaml.safe_load(method_configs()["cns"].read_text("utf-8"))["trainer"]["callbacks"]
    callbacks[0]["init_args"] |= {"neurons": neurons, "gradient_steps": 2}
    config = folder / f"{neurons}.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}), "utf-8")
    more = ["--samples.pictures", "0"]
    if neurons == "current_weights":  # so far that it shows
        more += ["--model.method.init_args.learning_rate", "0.3"]
    line = arguments(base, folder / "sequence.yaml", folder / neurons, *more, steps=2)
    assert main([*line, "--config", str(config)]) == 0
    records = NeuronRegistry.load(folder / neurons / "registry").records
    return [record.mask for record in records if record.mask is not None]


@pytest.fixture(scope="module")
def selected(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[NeuronMask]]:
    """Returns a folder with a sequence, and the neurons that CNS trains for its two concepts."""
    folder = tmp_path_factory.mktemp("neurons")
    write_sequence(folder, ["cat", "dog"])
    return folder, _trained(tiny_base_model, folder, "concept")


@pytest.mark.parametrize("neurons", CONTROLS)
def test_controls_train_other_neurons(
    neurons: str, selected: tuple[Path, list[NeuronMask]], tiny_base_model: Path
) -> None:
    folder, concept = selected
    found = _trained(tiny_base_model, folder, neurons)
    assert len(found) == 2
    if neurons == "all":
        assert [mask.count() for mask in found] == [mask.total() for mask in concept]
    elif neurons == "active":
        for ours, theirs in zip(found, concept, strict=True):
            assert ours & theirs == theirs
            assert ours.count() > theirs.count()
    elif neurons == "current_weights":
        assert found[0] == concept[0], "nothing has moved yet"
        assert found[1] != concept[1], "the first concept has moved weights"
    else:
        for ours, theirs in zip(found, concept, strict=True):
            assert ours != theirs
            assert ours.counts() == theirs.counts(), "as many in every matrix"
    if neurons == "random":
        assert found == [random_neurons(mask, 0, stage) for stage, mask in enumerate(concept)]
    if neurons == "magnitude":
        weights = dict(BaseModel.load(str(tiny_base_model)).unet.named_parameters())
        for name, bools in found[0].bools().items():
            magnitude = weights[name].detach().abs()
            assert not bools.any() or magnitude[bools].min() >= magnitude[~bools].max()


def test_a_share_that_leaves_no_neuron_is_said(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = yaml.safe_load(method_configs()["cns"].read_text("utf-8"))["trainer"]["callbacks"]
    callbacks[0]["init_args"] |= {"share": 0.001, "vote_threshold": 0.9}
    config = tmp_path / "few.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}), "utf-8")
    line = arguments(tiny_base_model, write_sequence(tmp_path / "two", ["cat", "dog"]), tmp_path / "run")
    assert main([*line, "--config", str(config)]) == 2
    assert "ImportanceScoring: selects no neuron for <new1>. Raise share (0.001)" in capsys.readouterr().err


def test_other_calibration_prompts_do_not_go_on_with_a_stage(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = tmp_path / "prompts.txt"
    texts = [f"a photo of a {word}" for word in ("house", "tree", "boat", "lamp")]
    prompts.write_text("\n".join(texts), "utf-8")
    callbacks = yaml.safe_load(method_configs()["cns"].read_text("utf-8"))["trainer"]["callbacks"]
    callbacks[0]["init_args"] |= {"calibration": str(prompts)}
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}), "utf-8")
    line = arguments(tiny_base_model, write_sequence(tmp_path / "two", ["cat", "dog"]), tmp_path / "run")
    line += ["--config", str(config)]
    monkeypatch.setattr(StopAt, "step", 2)
    with pytest.raises(SystemExit):
        main([*line, CALLBACK])
    monkeypatch.setattr(StopAt, "step", None)
    prompts.write_text("\n".join([*texts, "a photo of a car"]), "utf-8")
    assert main(line) == 2
    assert "holds other prompts than when the stage of <new1> began" in capsys.readouterr().err
    prompts.write_text("\n".join(texts), "utf-8")
    assert main(line) == 0


def test_general_neurons_that_were_deleted_within_a_stage_are_selected_anew(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence, run = write_sequence(tmp_path / "two", ["cat", "dog"]), tmp_path / "run"
    line = arguments(tiny_base_model, sequence, run)
    assert main(arguments(tiny_base_model, sequence, tmp_path / "whole")) == 0
    monkeypatch.setattr(StopAt, "step", 2)
    with pytest.raises(SystemExit):
        main([*line, CALLBACK])
    monkeypatch.setattr(StopAt, "step", None)
    (run / "registry" / "general.safetensors").unlink()
    assert main(line) == 0
    for name in ("000-new1.safetensors", "001-new2.safetensors"):
        assert (run / "registry" / name).read_bytes() == (tmp_path / "whole" / "registry" / name).read_bytes()
