"""Turns what jsonargparse says of a wrong setting into one sentence: file and key, what is wrong, what to do."""

from __future__ import annotations

import difflib
import re
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from cns_lightning.errors import Problems, UserError
from cns_lightning.user_files import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text",
         "list": "a list", "tuple": "a list", "dict": "a mapping"}  # fmt: skip
UNKNOWN = re.compile(
    r"Option '-*(?P<option>[\w.]+)' is not accepted"
    r"|does not accept option '-*(?P<group>[\w.]+)'"
    r"|[Uu]nrecognized arguments: -*(?P<argument>[\w.]+)"
)
LEFT_OVER = re.compile(r"[Uu]nrecognized arguments: (?!-)(\S+?)(?:\.? Did you mean|\.?$|\s)", re.MULTILINE)
PRECISIONS = {"no": "32-true", "fp32": "32-true", "float32": "32-true", "fp16": "16-mixed", "float16": "16-mixed",
              "half": "16-mixed", "bf16": "bf16-mixed", "bfloat16": "bf16-mixed"}  # fmt: skip
"""Lightning's words by those of other trainers."""
LITERAL = re.compile(r"typing\.Literal\[([^\]]*)\]")
SUGGESTED = re.compile(r"Did you mean '?([\w.]+)'?")
KEY = re.compile(r'Parser key "([^"]+)"')
EXPECTED = re.compile(r"Expected an? <class '(?!NoneType)(\w+)'>")
RANGE = re.compile(r"Input should be ([^\[,]+?)(?:, [^\[]*)? \[type=")
LIMITS = {"a valid number": "a number", "a valid integer": "a whole number", "greater than or equal to": "at least",
          "less than or equal to": "at most", "greater than": "more than"}  # fmt: skip
"""Our words by pydantic's."""
GO_ON = "Leave it out: the same command with the same --run goes on by itself"
STEPS = "Set the optimizer steps of a stage with --steps"
OTHER_TRAINERS = {
    **dict.fromkeys(("lr", "learning_rate"), "Set model.method.init_args.learning_rate"),
    **dict.fromkeys(("resume", "resume_from_checkpoint", "ckpt_path"), GO_ON),
    **dict.fromkeys(("epochs", "num_train_epochs", "max_train_steps", "max_steps", "num_steps"), STEPS),
    **dict.fromkeys(("output_dir", "out", "logdir"), "Give the run folder with --run"),
    **dict.fromkeys(
        ("instance_data_dir", "train_data_dir", "data_dir"), "Name the pictures' folder in the sequence file"
    ),
    **dict.fromkeys(("num_workers", "dataloader_num_workers"), "Leave it out: pictures are encoded once a stage"),
    **dict.fromkeys(("device", "gpus"), "Set trainer.accelerator and trainer.devices"),
    "pretrained_model_name_or_path": "Set model.base_model",
    "train_batch_size": "Set data.batch_size",
    "gradient_accumulation_steps": "Set trainer.accumulate_grad_batches",
    "mixed_precision": "Set trainer.precision, to bf16-mixed for example",
    "seed": "Set seed_everything",
}
"""What does here what a setting of other trainers does there."""
SEE = "See python -m cns_lightning fit --help-all"


PROBLEM_OF_CLASS = re.compile(r"Problem with given class_path '([\w.]+)':\s*(.+)")
CUTTING = {
    "max_time": None,
    "max_steps": -1,
    "limit_train_batches": None,
    "overfit_batches": 0.0,
    "fast_dev_run": False,
    "barebones": False,
}
"""Settings of the trainer that end a stage before its last step, and the value at which they do not."""
LEAST = {"num_nodes": 1, "devices": 1, "accumulate_grad_batches": 1, "gradient_clip_val": 0}
"""Settings of the trainer that Lightning does not check, and the least they may be."""
UNFIT = (
    *("GradientAccumulationScheduler", "StochasticWeightAveraging", "WeightAveraging", "EMAWeightAveraging"),
    *("BatchSizeFinder", "LearningRateFinder", "ModelPruning", "BackboneFinetuning"),
)
"""Lightning's callbacks that a stage cannot have."""
TRAINED_IN = ("None", "32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed")
"""What a stage can be trained in: single precision, alone or beside half."""
NEEDED = {"use_distributed_sampler": False, "reload_dataloaders_every_n_epochs": 1}
"""Settings of the trainer without which a stage would see other data than it should."""


class ConfigurationMistake(Exception):
    """What a parser said of a setting, unexplained.

    Attributes:
        known: keys that the parser knows.
    """

    def __init__(self, message: str, known: list[str]) -> None:
        self.known = known
        near = _nearest_of(message, known)
        # Parsers are nested, and the outer one quotes the inner: the suggestion must travel in the text.
        super().__init__(f"{message}. Did you mean {near}" if near and "Did you mean" not in message else message)


@contextmanager
def lightning_explained() -> Iterator[None]:
    """Turns what Lightning refuses inside the block into the user's mistake.

    Raises:
        UserError: for settings, callbacks or loggers that do not go together, or cannot be made.
    """
    try:
        yield
    except MisconfigurationException as error:
        sentence = re.sub(r"\s+", " ", str(error)).strip().rstrip(".!")
        remedy = "Change the settings of the trainer, or take it out"
        if "backend" in sentence or "device" in sentence.lower():
            remedy = "Add --config configs/hardware/cpu.yaml, or install a torch that sees the GPU"
        raise UserError("trainer", sentence, remedy) from error
    except RuntimeError as error:
        if "ntasks" not in str(error):  # what Lightning says of a job's script
            _tell_callback(error)
            raise
        raise UserError("SLURM", str(error).strip(), "Let launch write the script, or set --ntasks-per-node") from error
    except (ImportError, ValueError) as error:
        found = PROBLEM_OF_CLASS.search(str(error))
        if not found:
            _tell_setting(error)
            raise
        raise UserError(found[1], found[2].strip().rstrip("."), "Install what is missing, or take it out") from error


def _tell_setting(error: Exception) -> None:
    """Turns what Lightning says of an accelerator, precision or plugin that it has not into the user's mistake.

    Raises:
        UserError: if the error comes from where the trainer's settings are looked at.
    """
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if "lightning" in last.parts and last.parent.name in ("connectors", "accelerators", "precision", "environments"):
        sentence = re.sub(r"\s+", " ", str(error)).strip().rstrip(".!")
        raise UserError("trainer", sentence, "Change the settings of the trainer, or leave them out") from error


def _tell_callback(error: RuntimeError) -> None:
    """Turns what one of Lightning's own callbacks says of its settings into the user's mistake.

    Raises:
        UserError: if the error comes from one.
    """
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    if Path(last).parent.parts[-3:] == ("lightning", "pytorch", "callbacks"):
        sentence = re.sub(r"\s+", " ", str(error)).strip().rstrip(".!")
        raise UserError("trainer.callbacks", sentence, "Change its settings, or take it out") from error


def check_trainer(trainer: Any) -> None:
    """Refuses settings of the trainer that cut a stage short or change its data: its concept would count as learned.

    Args:
        trainer: its settings by name.

    Raises:
        UserError: naming every one of them.
    """
    problems = Problems()
    for name, whole in CUTTING.items():
        given = trainer.get(name)
        if given != whole and not (name == "limit_train_batches" and isinstance(given, float) and given == 1.0):
            problem = f"is {given}, which ends a stage before its concept is learned"
            problems.add(
                f"trainer.{name}", problem, "Set the length of a stage with --steps; a stopped run goes on by itself"
            )
    for name, least in LEAST.items():
        given = str(trainer.get(name))
        is_all = name == "devices" and given == "-1"
        if _is_number(given) and not float(given) >= least and not is_all:
            problems.add(f"trainer.{name}", f"is {given}, at least {least} is needed", "Write a larger number")
    for path in (each.class_path for each in trainer.get("callbacks") or [] if hasattr(each, "class_path")):
        if path.rsplit(".", 1)[-1] in UNFIT:
            problem = f"has {path.rsplit('.', 1)[-1]}, which changes what a step is or what it trains"
            problems.add("trainer.callbacks", problem, "Take it out")
    precision = str(trainer.get("precision"))
    if precision not in TRAINED_IN:
        remedy = "Write bf16-mixed; model.base_dtype holds the frozen base model in half precision"
        problems.add("trainer.precision", f"is {precision}, which converts what is trained", remedy)
    for name, needed in NEEDED.items():
        if trainer.get(name) != needed:
            problems.add(f"trainer.{name}", f"is {trainer.get(name)}, {needed} is needed", "Leave it out")
    problems.raise_if_any()


def check_seed(seed: int | bool) -> None:
    """Refuses a seed that Lightning would not take.

    Raises:
        UserError: if it is not from 0 to 2^32 - 1.
    """
    if not isinstance(seed, bool) and not 0 <= seed < 2**32:
        raise UserError("--seed_everything", f"is {seed}, a number from 0 to {2**32 - 1} is needed", "Take another one")


def explained(mistake: ConfigurationMistake, arguments: list[str]) -> UserError:
    """Returns the user's mistake.

    Args:
        mistake: message of a parser.
        arguments: the command line, which names the YAML files.
    """
    message = str(mistake)
    missing = re.search(r"required: ([\w., ]+)", message)
    if missing:
        name = missing.group(1).strip(" .")
        if name.split(".", 1)[0] not in ("run", "data", "model"):  # of a callback or logger that the user added
            where = f"{_place('callbacks', arguments)}: {name}"
            return UserError(where, "is missing", "Add it below init_args of the class that needs it")
        return UserError(f"--{name}", "is missing", f"Add --{name}")
    absent = re.search(r"File does not exist: '?([^'\n]+)", message)
    if absent:
        return UserError(absent.group(1), "does not exist", "Give the path of a YAML file")
    left_over = LEFT_OVER.search(message)
    if left_over:
        word = left_over.group(1)
        remedy = (
            "Put --config before it"
            if Path(word).suffix in (".yaml", ".yml")
            else "Put quotes around a value that holds spaces"
        )
        return UserError(f"command line: {word}", "belongs to no option", remedy)
    unknown = UNKNOWN.search(message)
    if unknown:
        name = next(group for group in unknown.groups() if group).rstrip(".")
        near = SUGGESTED.search(message)
        last = name.rsplit(".", 1)[-1]
        remedy = OTHER_TRAINERS.get(last) if last == name or last == "num_workers" else None
        remedy = remedy or (f"Did you mean {near.group(1)}" if near else SEE)
        return UserError(f"{_place(name, arguments)}: {name}", "is an unknown key", remedy)
    return _wrong_value(message, arguments)


def _wrong_value(message: str, arguments: list[str]) -> UserError:
    # Parsers are nested: the innermost knows best.
    key = next(reversed(KEY.findall(message)), "configuration")
    where = f"{_place(key.rsplit('.', 1)[-1], arguments)}: {key}"
    given = re.search(r"(?:Given|Got) value: ?(.*)", message)
    value = given.group(1).strip() if given else ""
    value = value if value.strip("'\"") else "empty"
    choices = list(dict.fromkeys(re.findall(r"'([^']*)'", " ".join(LITERAL.findall(message)))))
    if choices and value != "empty" and not _is_number(value):
        word = value.strip("'\"")
        near = PRECISIONS.get(word.lower()) if key == "trainer.precision" else None
        near = near or next(iter(difflib.get_close_matches(word, choices, 1)), None)
        return UserError(where, f"is {word}, none of {', '.join(choices)}", f"Did you mean {near}" if near else SEE)
    if limit := RANGE.search(message):
        needed = _in_words(limit.group(1), value)
    elif expected := EXPECTED.search(message):
        needed = TYPES.get(expected.group(1), expected.group(1))
    else:
        lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
        telling = [line for line in lines if ("Expected" in line and "NoneType" not in line) or "No module" in line]
        sentence = next(iter(telling), lines[-1])
        return UserError(where, re.sub(r"\s+", " ", sentence).rstrip("."), SEE)
    words = f", or {' or '.join(choices)}," if choices else ""
    return UserError(where, f"is {value}, {needed}{words} is needed", SEE)


def _in_words(limit: str, value: str) -> str:
    """Says a limit of pydantic's in our words."""
    theirs = next((theirs for theirs in LIMITS if limit.startswith(theirs)), "")
    # The parser takes the value out of what it quotes, and with it a limit that equals it.
    rest = limit.removeprefix(theirs) or ("" if theirs.startswith("a ") else f" {value}")
    return LIMITS.get(theirs, "") + rest


def _is_number(text: str) -> bool:
    try:
        float(text.strip().strip("'\""))
    except ValueError:
        return False
    return True


def _nearest_of(message: str, known: list[str]) -> str | None:
    unknown = UNKNOWN.search(message)
    if not unknown:
        return None
    name = next(group for group in unknown.groups() if group)
    by_last = {key.rsplit(".", 1)[-1]: key for key in known}
    prefix = re.search(r"Group '([\w.]+)'", message)
    if prefix:
        by_last = {last: key for last, key in by_last.items() if key.startswith(f"{prefix.group(1)}.")}
    found = difflib.get_close_matches(name, known, 1)
    return (
        found[0]
        if found
        else next((by_last[last] for last in difflib.get_close_matches(name.rsplit(".", 1)[-1], by_last, 1)), None)
    )


def check_config_files(arguments: list[str]) -> None:
    """Reads the YAML files of a command line once; the parser takes the last of two equal keys without a word.

    Raises:
        UserError: if one is not valid YAML or not UTF-8 text, or gives a key twice.
    """
    for path in config_files(arguments):
        if path.is_file():  # of one that is not there the parser speaks
            read_yaml(path, "Give the path of a YAML file")


def config_files(arguments: list[str]) -> list[Path]:
    """Lists the YAML files of a command line, in their order."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    files = [Path(value) for flag, value in pairs if flag in ("--config", "-c")]
    return files + [Path(argument.split("=", 1)[1]) for argument in arguments if argument.startswith("--config=")]


def _place(name: str, arguments: list[str]) -> str:
    """Says where a key was written: on the command line, or in the last file that has it."""
    if any(argument.startswith("--") and name in argument.split("=", 1)[0] for argument in arguments):
        return "command line"
    last = name.rsplit(".", 1)[-1]
    for path in reversed(config_files(arguments)):
        if path.is_file() and re.search(rf"^\s*(- )?{re.escape(last)}\s*:", path.read_text("utf-8"), re.MULTILINE):
            return str(path)
    return "configuration"
