"""The way in from Python: a trainer for module and data module that were made by hand, in a notebook or a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer, seed_everything

from cns_lightning.configuration.continuation import is_own
from cns_lightning.configuration.errors import ConfigurationMistake, explained, lightning_explained
from cns_lightning.configuration.parser import CheckedConfiguration, quieten, usual_accelerator
from cns_lightning.configuration.processes import check_group, choose_strategy, process_count
from cns_lightning.configuration.trainer import DEFAULTS, CheckedRun, ContinualTrainer
from cns_lightning.configuration.usual_callbacks import USUAL, key_of
from cns_lightning.data.module import ConceptDataModule
from cns_lightning.errors import UserError
from cns_lightning.methods.base import Method
from cns_lightning.slurm.job import leave_out_tasks
from cns_lightning.training.strategy import StagedDDP
from cns_lightning.user_files import expanded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning.pytorch import Callback

    from cns_lightning.module import ContinualPersonalization

LINKED = ("steps", "guidance")
"""Arguments of the monitor, and of a stage's end, that are those of the samples: they draw in the same way."""
_ABSENT = object()


def continual_trainer(run: str | Path, callbacks: Sequence[Callback] = (), **settings: Any) -> ContinualTrainer:
    """Makes a trainer whose ``fit(module, data)`` learns a sequence, or goes on where its run folder stands.

    It does what the command ``fit`` does: checks everything first, holds the folder, writes ``config.yaml``, so that
    the run can be continued, tested and drawn with from the command line as well.

    Args:
        run: run folder.
        callbacks: those of the method (for CNS `ImportanceScoring`, then `MaskFreezing`) and the user's own. A callback
            that every run has, such as `SampleGrid`, takes the place of the usual one, wherever it stands.
        settings: those of Lightning's trainer; one device, unless they say otherwise.

    Raises:
        UserError: if a setting is unknown, or a callback or strategy does not go with continual learning.
    """
    quieten()
    leave_out_tasks()
    for name in settings.keys() - signature(Trainer).parameters.keys():
        remedy = "Settings are those of lightning.pytorch.Trainer; concepts and steps are the data module's"
        raise UserError("continual_trainer", f"unknown setting {name}", remedy)
    if not isinstance(settings.get("strategy", "auto"), str):
        problem = "is an object; one stage trains so little that every device holds it whole"
        raise UserError("trainer.strategy", problem, "Leave it out")
    chosen = Namespace({"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto", **settings})
    if chosen.accelerator == "auto":
        chosen.accelerator = usual_accelerator()
    choose_strategy(chosen)
    check_group(process_count(chosen), chosen.num_nodes)
    settings |= {"accelerator": chosen.accelerator, "devices": chosen.devices}
    given = {
        **DEFAULTS,
        **settings,
        "strategy": StagedDDP() if isinstance(chosen.strategy, Namespace) else "auto",
        "default_root_dir": str(expanded(str(run)).absolute()),
        "max_epochs": -1,  # as many as the sequence has concepts, which `fit` reads
        "callbacks": list(callbacks),
    }
    with lightning_explained():
        trainer = _HandMadeTrainer(**given)
    trainer.described = _plain(settings)
    return trainer


class _HandMadeTrainer(ContinualTrainer):
    """Says of hand-made objects what a configuration would say of them, and has it checked like one.

    Attributes:
        described: settings of the trainer.
    """

    described: dict[str, Any]

    def checked_run(self, model: ContinualPersonalization, datamodule: ConceptDataModule) -> CheckedRun:
        """Returns what module, data module and callbacks mean.

        Raises:
            UserError: if something does not go together, or the folder holds another run.
        """
        if model.seed != datamodule.seed:
            problem = f"is {datamodule.seed}, and that of the module is {model.seed}"
            raise UserError("seed of the data module", problem, "Give both the same")
        callbacks: list[Callback] = self.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        usual = {key: arguments_of(each, USUAL[key]) for each in callbacks if (key := key_of(each))}
        draws = {"monitor": usual["monitor"]["pictures"], "stage_end": usual["stage_end"]["keep"] == "best"}
        for key in draws:
            differing = [name for name in LINKED if usual[key].pop(name) != usual["samples"][name]]
            if differing and draws[key]:
                problem = f"has other {' and '.join(differing)} than SampleGrid"
                raise UserError(USUAL[key].__name__, problem, "Give both the same: they draw in the same way")
        others = [each for each in callbacks if not key_of(each) and is_own(_path(type(each)))]
        described = {
            "seed_everything": model.seed,
            "run": self.default_root_dir,
            "model": {name: value for name, value in arguments_of(model).items() if name != "seed"},
            "data": {name: value for name, value in arguments_of(datamodule).items() if name != "seed"},
            "trainer": {**self.described, "callbacks": [_described(each) for each in others]},
            **usual,
        }
        try:
            checked = CheckedConfiguration(described)
        except ConfigurationMistake as mistake:
            raise explained(mistake, []) from mistake
        seed_everything(model.seed, workers=True, verbose=False)
        run = checked.checked_run()
        self.fit_loop.max_epochs = len(run.sequence.concepts)
        return run


def arguments_of(made: Any, kind: type | None = None) -> dict[str, Any]:
    """Returns the arguments an object was made with, as plain values by name.

    They are read from its attributes of the same names.

    Args:
        made: the object.
        kind: class whose arguments count; None takes the object's own.

    Raises:
        UserError: if it keeps one of them under another name.
    """
    found = {}
    for name in signature(kind or type(made)).parameters:
        value = (
            made.path if isinstance(made, ConceptDataModule) and name == "sequence" else getattr(made, name, _ABSENT)
        )
        if value is _ABSENT:
            problem = f"keeps its argument {name} under another name, config.yaml cannot say what it was"
            raise UserError(_path(type(made)), problem, f"Write self.{name} = {name} in its constructor")
        found[name] = _plain(value)
    return found


def _described(made: Any) -> dict[str, Any]:
    return {"class_path": _path(type(made)), "init_args": arguments_of(made)}


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any) -> Any:
    """Returns a value as a YAML file would hold it."""
    if isinstance(value, Method):
        return _described(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items() if _is_plain(part)}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value if _is_plain(part)]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(vars(value))
    return str(value) if isinstance(value, Path) else value


def _is_plain(value: Any) -> bool:
    """Returns whether a value can stand in a configuration; a logger that was made by hand cannot."""
    return isinstance(value, str | int | float | bool | None | Mapping | list | tuple | Path) or is_dataclass(value)
