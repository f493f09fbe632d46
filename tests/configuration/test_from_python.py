"""The way in from Python: the same run as from the command line, bit for bit."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from cns_lightning import ConceptDataModule, ContinualPersonalization, continual_trainer
from cns_lightning.callbacks.forgetting_monitor import ForgettingMonitor
from cns_lightning.callbacks.importance_scoring import ImportanceScoring
from cns_lightning.callbacks.mask_freezing import MaskFreezing
from cns_lightning.callbacks.sample_grid import SampleGrid
from cns_lightning.cli.main import main
from cns_lightning.configuration.from_python import arguments_of
from cns_lightning.configuration.trainer import ContinualTrainer
from cns_lightning.configuration.usual_callbacks import USUAL
from cns_lightning.data.prior_pictures import PriorPictures
from cns_lightning.errors import UserError
from cns_lightning.methods.cns import ConceptNeuronSelection
from cns_lightning.methods.discovery import method_configs
from cns_lightning.methods.textual_inversion import TextualInversion
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from tests.runs.learning import arguments, write_sequence


def _described_method(name: str) -> dict[str, Any]:
    return yaml.safe_load(method_configs()[name].read_text("utf-8"))["model"]["method"]


def _made(run: Path, base: Path, sequence: Path, *callbacks: Callback, **changed: Any) -> Any:
    settings = _described_method("cns")["init_args"]
    module = ContinualPersonalization(ConceptNeuronSelection(**settings), base_model=str(base))
    data = ConceptDataModule(str(sequence), batch_size=2, steps=3, **{"prior": PriorPictures(steps=2), **changed})
    selection = yaml.safe_load(method_configs()["cns"].read_text("utf-8"))["trainer"]["callbacks"][0]["init_args"]
    trainer = continual_trainer(
        run,
        [SampleGrid(pictures=2, steps=2), ImportanceScoring(**selection), MaskFreezing(), *callbacks],
        precision="32-true",
    )
    return trainer, module, data


def test_a_run_from_python_is_the_run_of_the_command_line(tiny_base_model: Path, tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path, ["cat", "dog"])
    ours, theirs = tmp_path / "python", tmp_path / "command"
    trainer, module, data = _made(ours, tiny_base_model, sequence)
    trainer.fit(module, data)
    line = arguments(tiny_base_model, sequence, theirs)
    assert main(line) == 0
    for pattern in ("registry/*", "samples/*.png", "metrics.csv"):
        names = sorted(path.relative_to(theirs) for path in theirs.glob(pattern))
        assert names
        for name in names:
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    kept, expected = (RunConfig.read(RunFolder(each)) for each in (ours, theirs))
    assert kept.settings == expected.settings
    # Each way goes on with a run of the other.
    assert main([str(ours) if word == str(theirs) else word for word in line]) == 0
    trainer, module, data = _made(theirs, tiny_base_model, sequence)
    trainer.fit(module, data)
    trainer, module, data = _made(ours, tiny_base_model, sequence, noise_offset=0.1)
    with pytest.raises(UserError, match=r"data\.noise_offset was 0\.0 and is 0\.1"):
        trainer.fit(module, data)


def test_what_does_not_go_together_is_refused(tiny_base_model: Path, tmp_path: Path) -> None:
    sequence, run = write_sequence(tmp_path, ["cat"]), tmp_path / "run"
    trainer, module, data = _made(run, tiny_base_model, sequence, seed=3)
    with pytest.raises(UserError, match="seed of the data module: is 3, and that of the module is 0"):
        trainer.fit(module, data)
    trainer, module, data = _made(run, tiny_base_model, sequence, ForgettingMonitor(pictures=1, steps=3))
    with pytest.raises(UserError, match="ForgettingMonitor: has other steps than SampleGrid"):
        trainer.fit(module, data)
    trainer, module, data = _made(run, tiny_base_model, sequence, augmentation=None)
    with pytest.raises(UserError, match="augmentation"):
        trainer.fit(module, data)
    with pytest.raises(RuntimeError, match="make it with continual_trainer"):
        ContinualTrainer(max_epochs=1, logger=False, accelerator="cpu").fit(module, data)
    assert not run.exists()


def _kinds() -> list[type]:
    named = [_described_method(name)["class_path"].rsplit(".", 1) for name in method_configs()]
    return [*(getattr(import_module(module), name) for module, name in named), *USUAL.values(), ImportanceScoring]


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.__name__)
def test_every_argument_is_kept_under_its_name(kind: type) -> None:
    usual = {name: each.default for name, each in inspect.signature(kind).parameters.items()}
    found = arguments_of(kind())
    assert found.keys() == usual.keys()
    assert {name: value for name, value in found.items() if isinstance(usual[name], int | float | str)} == {
        name: value for name, value in usual.items() if isinstance(value, int | float | str)
    }


class Twice(SampleGrid):
    """A user's own way to draw samples."""


def test_callbacks_and_settings_that_do_not_go_with_a_run_are_refused(tmp_path: Path) -> None:
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        (
            {"callbacks": [StochasticWeightAveraging(1e-3)]},
            "has StochasticWeightAveraging, which changes",
        ),
        ({"callbacks": [SampleGrid(), Twice()]}, "has Twice, and every run has one such already"),
        ({"callbacks": [ModelCheckpoint()]}, "has a ModelCheckpoint that says no dirpath"),
        ({"lr": 1.0}, "unknown setting lr"),
        ({"strategy": DDPStrategy()}, r"trainer\.strategy: is an object"),
        ({"accelerator": "nonsense"}, "trainer: .*nonsense"),
    )
    for wrong, said in refused:
        with pytest.raises(UserError, match=said):
            continual_trainer(tmp_path, **wrong)


def test_a_derived_callback_takes_the_place_of_the_usual_one(tiny_base_model: Path, tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path, ["cat"])
    settings = _described_method("textual_inversion").get("init_args") or {}
    module = ContinualPersonalization(TextualInversion(**settings), base_model=str(tiny_base_model))
    data = ConceptDataModule(str(sequence), batch_size=2, steps=1)
    beside = ModelCheckpoint(dirpath=tmp_path / "mine", every_n_train_steps=1)
    trainer = continual_trainer(
        tmp_path / "run", [Twice(pictures=1, steps=2), beside], plugins=[LightningEnvironment()]
    )
    trainer.fit(module, data)
    assert [type(each).__name__ for each in trainer.callbacks if isinstance(each, SampleGrid)] == ["Twice"]  # pyright: ignore
    assert (tmp_path / "run" / "samples" / "stage-0.png").exists()
    assert list((tmp_path / "mine").iterdir())
    assert "0x" not in (tmp_path / "run" / "config.yaml").read_text("utf-8")
    again = continual_trainer(tmp_path / "other", [Twice(pictures=1, steps=2)])
    with pytest.raises(UserError, match="has been trained by another trainer"):
        again.fit(module, data)
