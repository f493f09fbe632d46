"""The parser and the checks of ``fit``: from YAML files and a command line to a configuration, and to what it means."""

from __future__ import annotations

import logging
import warnings
from enum import Enum
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from cns_lightning.callbacks.snapshots import check_snapshots
from cns_lightning.callbacks.stage_end import check_keep
from cns_lightning.configuration.anew import configuration_of_run
from cns_lightning.configuration.concept_settings import check_rates, learned_tokens
from cns_lightning.configuration.continuation import check_folded, check_unchanged, comparable
from cns_lightning.configuration.errors import (
    ConfigurationMistake,
    check_config_files,
    check_seed,
    check_trainer,
    explained,
)
from cns_lightning.configuration.processes import check_group, choose_strategy, process_count
from cns_lightning.configuration.trainer import DEFAULTS, CheckedRun, ContinualTrainer
from cns_lightning.configuration.usual_callbacks import USUAL
from cns_lightning.data.augmentation import Augmentation
from cns_lightning.data.masks import Masks
from cns_lightning.data.module import ConceptDataModule, steps_of_stage
from cns_lightning.data.prior_pictures import PriorPictures
from cns_lightning.diffusion.base_source import MINIATURE, BaseSource
from cns_lightning.errors import Problems, UserError
from cns_lightning.module import ContinualPersonalization
from cns_lightning.ranges import Count
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence, sequence_path
from cns_lightning.user_files import expanded

if TYPE_CHECKING:
    from collections.abc import Callable

# Some of Lightning's callbacks have members of an Enum for defaults, which YAML does not know.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))


class StrictParser(LightningArgumentParser):
    """Hands a mistake on instead of printing a page of usage and ending the process."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raises the message.

        Raises:
            ConfigurationMistake: always.
        """
        raise ConfigurationMistake(str(message), [action.dest for action in self._actions if action.dest]) from ex

    def parse_path(self, path: Any, *arguments: Any, **keywords: Any) -> Namespace:
        """Reads a YAML file; of a run's ``config.yaml`` what the run was given."""
        whole = configuration_of_run(Path(path))
        if whole is None:
            return super().parse_path(path, *arguments, **keywords)
        return self.parse_string(yaml.safe_dump(whole), **keywords)


def check_epochs(epochs: int | None, concepts: int) -> None:
    """Refuses another number of epochs than concepts.

    Raises:
        UserError: saying both.
    """
    if epochs not in (None, -1, concepts):
        problem = f"is {epochs}, and the sequence has {concepts} concepts"
        raise UserError("trainer.max_epochs", problem, "Leave it out; a shorter sequence file ends earlier")


class ContinualCLI(LightningCLI):
    """Builds module, data and trainer from stacked YAML files and the command line."""

    trainer: ContinualTrainer

    def __init__(self, arguments: list[str] | dict[str, Any]) -> None:
        super().__init__(
            ContinualPersonalization,
            ConceptDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_class=ContinualTrainer,
            trainer_defaults=DEFAULTS,
            auto_configure_optimizers=False,
            run=False,
            args=arguments,
        )

    def init_parser(self, **keywords: Any) -> LightningArgumentParser:
        """Makes the parser whose errors are one sentence."""
        parser = StrictParser(**keywords)
        parser.add_argument("-c", "--config", action="config", help="a YAML file; later files win")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the run folder, the quick-trial step count and the callbacks that every run has."""
        parser.add_argument("--run", type=str, required=True, help="run folder, everything is written there")
        parser.add_argument(
            "--steps",
            type=Count | None,
            default=None,
            help="optimizer steps of every stage, also of concepts that have their own",
        )
        for key, callback in USUAL.items():
            parser.add_lightning_class_args(callback, key)
        for key in ("steps", "guidance"):
            for other in ("monitor", "stage_end"):
                parser.link_arguments(f"samples.{key}", f"{other}.{key}")
        parser.link_arguments("seed_everything", "model.seed", compute_fn=_as_seed)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_as_seed)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Reads files and command line; refuses steps there that those of a file would override without a word."""
        super().parse_arguments(parser, args)
        given = [word.partition("=")[0] for word in args] if isinstance(args, list) else []
        for key in ("--data.steps", "--data.steps_per_picture"):
            if key in given and "--steps" not in given and self.config.steps is not None:
                problem = f"does not count beside steps: {self.config.steps}, which a configuration file says"
                raise UserError(key, problem, "Use --steps, or --steps null for those of data")

    def before_instantiate_classes(self) -> None:
        """Fills in what follows from the sequence and the command line, and checks the run folder."""
        config = self.config
        for key in ("run", "model.base_model", "data.sequence"):
            if not config[key].strip():
                raise UserError(f"--{key}", "is empty", "Give a folder, file or name")
        self.check(check_nulls, config)
        config.run = str(expanded(config.run))
        if config.steps is not None:
            config.data.steps, config.data.steps_per_picture = config.steps, None
        self.check(check_trainer, config.trainer)
        config.trainer.default_root_dir = str(Path(config.run).absolute())
        self.folder = RunFolder(Path(config.trainer.default_root_dir))
        # The monitor scores all concepts, and needs the photos of all; so does whoever chooses among steps.
        needs_all = config.monitor.pictures or config.stage_end.keep == "best"
        self.learned = () if needs_all else learned_tokens(self.folder)
        self.sequence = self.read_sequence(sequence_path(config.data.sequence))
        if config.steps is not None:
            self.sequence = self.sequence.without_own_steps()
        self.check(check_rates, self.sequence, config.model.method.class_path)
        self.check(check_epochs, config.trainer.max_epochs, len(self.sequence.concepts))
        config.trainer.max_epochs = len(self.sequence.concepts)
        coming = [concept for concept in self.sequence.concepts if concept.token not in self.learned]
        lengths = [steps_of_stage(config.data.steps, config.data.steps_per_picture, each) for each in coming]
        self.check(check_snapshots, config.snapshots.steps, min(lengths, default=config.data.steps))
        self.check(check_keep, config.stage_end.keep, config.snapshots.steps, _class(config.model.method.class_path))
        source = make_absolute(config)
        if config.trainer.accelerator == "auto":
            config.trainer.accelerator = self.usual_accelerator()
        if str(config.trainer.devices) in ("auto", "-1"):
            config.trainer.devices = self.usual_devices()
        for logger in _listed(config.trainer.logger):
            if str(logger.get("init_args", {}).get("save_dir", "")).startswith("{run}"):
                logger.init_args.save_dir = str(logger.init_args.save_dir).replace("{run}", config.run)
        choose_strategy(config.trainer)
        self.check(check_unchanged, self.folder, comparable(config), self.sequence)
        self.check(check_folded, self.folder, source)

    def check(self, act: Callable[..., object], *arguments: Any) -> None:
        """Calls a check; `doctor` collects what it raises and goes on with the next."""
        act(*arguments)

    def read_sequence(self, path: Path) -> Sequence:
        """Reads the sequence file; `doctor` goes on with what can be read of it."""
        return Sequence.read(path, self.learned)

    def instantiate_classes(self) -> None:
        """Makes the parts, in a process that knows its place among the others."""
        check_group(process_count(self.config.trainer), self.config.trainer.num_nodes)
        super().instantiate_classes()

    def _set_seed(self) -> None:
        """Checks the seed before Lightning draws with it."""
        check_seed(self.config.seed_everything)
        super()._set_seed()

    def usual_accelerator(self) -> str:
        """Returns what ``auto`` means here."""
        return usual_accelerator()

    def usual_devices(self) -> int | str:
        """Returns what ``auto`` means here; by number, so that a run is not continued on fewer unnoticed."""
        trainer = self.config.trainer
        return process_count(trainer) // trainer.num_nodes

    def checked_run(self) -> CheckedRun:
        """Returns what the configuration means, once it has been checked."""
        whole = yaml.safe_load(self.parser.dump(self.config, skip_check=True, skip_none=False))
        config = RunConfig(self.folder.config, comparable(self.config), self.sequence.plain(), whole)
        return CheckedRun(self.folder, self.sequence, self.learned, config)


def make_absolute(config: Namespace) -> BaseSource:
    """Makes places absolute, for commands that are called elsewhere; returns that of the base model."""
    sequence, base = expanded(config.data.sequence), expanded(config.model.base_model)
    if sequence.is_file():
        config.data.sequence = str(sequence.absolute())
    if config.model.base_model != MINIATURE and base.exists():
        config.model.base_model = str(base.absolute())
    strengths = {str(expanded(file).absolute()): each for file, each in (config.model.base_loras or {}).items()}
    config.model.base_loras = strengths or None
    return BaseSource.of(config.model.base_model, config.model.revision, strengths)


class _FoundParser(Exception):
    """Carries the parser out of a command line that is not going to be parsed."""

    def __init__(self, parser: LightningArgumentParser) -> None:
        super().__init__()
        self.parser = parser


class _ParserAlone(ContinualCLI):
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> NoReturn:
        raise _FoundParser(parser)


def fit_parser() -> LightningArgumentParser:
    """Returns the parser of ``fit``, for what lists its keys."""
    try:
        _ParserAlone([])
    except _FoundParser as found:
        return found.parser
    raise AssertionError


class CheckedConfiguration(ContinualCLI):
    """Stops short of making anything: on a cluster's login node there are no devices to make it for."""

    def instantiate_classes(self) -> None:
        """Makes nothing."""

    def usual_accelerator(self) -> str:
        """Returns what the run has; for a new one it stays open, the job's machine decides."""
        kept = RunConfig.find(self.folder)
        return "auto" if kept is None else kept.settings.get("trainer.accelerator", "auto")

    def usual_devices(self) -> int | str:
        """Returns what the run has; for a new one it stays open, the job's machine decides."""
        kept = RunConfig.find(self.folder)
        return "auto" if kept is None else kept.settings.get("trainer.devices", "auto")

    def _set_seed(self) -> None:
        """Draws nothing, and checks the seed."""
        check_seed(self.config.seed_everything)


def usual_accelerator() -> str:
    """Returns what ``auto`` means here; by name, so that a run is not continued on another device unnoticed."""
    return "gpu" if torch.cuda.is_available() else "cpu"


class _UncomparedConfiguration(CheckedConfiguration):
    def check(self, act: Callable[..., object], *arguments: Any) -> None:
        if act is not check_unchanged:
            super().check(act, *arguments)


def checked_configuration(arguments: list[str], is_compared: bool = True) -> Namespace:
    """Returns the configuration that ``fit`` would run.

    Args:
        arguments: words after ``fit``.
        is_compared: whether a run that has begun must have the same settings.

    Raises:
        UserError: if ``fit`` would refuse it.
    """
    quieten()
    check_config_files(arguments)
    try:
        return (CheckedConfiguration if is_compared else _UncomparedConfiguration)(arguments).config
    except ConfigurationMistake as mistake:
        raise explained(mistake, arguments) from mistake


def check_nulls(config: Namespace) -> None:
    """Refuses settings without a value, as of a key that ends with its colon, where one is needed.

    Raises:
        UserError: naming every one of them.
    """
    groups: list[tuple[str, Any, Any]] = [("model", ContinualPersonalization, config.model)]
    groups += [("data", ConceptDataModule, config.data), ("data.prior", PriorPictures, config.data.prior)]
    groups += [("data.masks", Masks, config.data.masks)]
    groups += [("data.augmentation", Augmentation, config.data.augmentation)]
    groups += [(key, kind, config.get(key, Namespace())) for key, kind in USUAL.items()]
    classes = [("model.method", config.model.method)]
    classes += [("trainer.callbacks", each) for each in _listed(config.trainer.callbacks)]
    groups += [(key, _class(each.class_path), each.get("init_args", Namespace())) for key, each in classes]
    problems = Problems()
    for where, kind, values in groups:
        values = values or Namespace()  # a group that is null as a whole is named by the group above it
        for name, parameter in signature(kind).parameters.items():
            if parameter.default not in (None, parameter.empty) and values.get(name, parameter.default) is None:
                problems.add(f"{where}: {name}", "has no value", f"Write one, such as {parameter.default}")
    problems.raise_if_any()


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _listed(value: Any) -> list[Any]:
    """Returns the parts of a setting that are made from a class."""
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, Namespace)]


def _as_seed(value: int | bool) -> int:
    return int(value)


def quieten() -> None:
    """Leaves out what Lightning says to its own users and is not news to ours."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        "LightningCLI's args parameter",
        "Found .* in eval mode",
        ".*does not have many workers",
        ".*LeafSpec",
        # On a login node that is meant; `launch` brings srun.
        "The `srun` command is available",
        # Its state is the step in the checkpoint; Lightning looks for another kind.
        # A first step that half precision skips: the schedule counts it, as the run does.
        "Detected call of `lr_scheduler.step\\(\\)` before",
        "You're resuming from a checkpoint that ended before the epoch ended",
    ):
        warnings.filterwarnings("ignore", message=message)
