"""Paths, YAML files and commands as users write them: ``~``, names of files that ship, one message for a bad file."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import unicodedata
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

SCRIPT = "cns-lightning"
CONFIGS = "configs"
_CONFIG_OPTIONS = ("--config", "-c")
_MERGE = "tag:yaml.org,2002:merge"


def _check_keys(node: yaml.Node | None, seen: set[int]) -> None:
    """Refuses a second key of the same name, which YAML forbids and PyYAML takes in place of the first.

    Raises:
        yaml.constructor.ConstructorError: at the second one.
    """
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in lines:
                    problem = f"{key.value} stands here for the second time, after line {lines[key.value]}"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                lines[key.value] = key.start_mark.line + 1
            _check_keys(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_keys(each, seen)


def read_text(path: Path, remedy: str) -> str:
    """Reads a text file; a byte order mark is left out.

    Args:
        path: path of the file.
        remedy: remedy for a file that cannot be read at all.

    Raises:
        UserError: if it cannot be read or is not UTF-8 text; naming the line.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", remedy) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line}", "is not UTF-8 text", "Save the file as UTF-8") from error


def read_yaml(path: Path, remedy: str) -> Any:
    """Reads a YAML file; a byte order mark is left out.

    Args:
        path: path of the file.
        remedy: what to give in its place where it cannot be read at all.

    Raises:
        UserError: if it cannot be read, is not UTF-8 text or not valid YAML, or has a key twice; naming the line.
    """
    text = read_text(path, remedy)
    try:
        _check_keys(yaml.compose(text, yaml.SafeLoader), set())
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
        where = f"{path}: line {mark.line + 1}" if mark is not None else str(path)
        if isinstance(error, yaml.constructor.ConstructorError) and "second time" in problem:
            raise UserError(where, problem, "Put both into one") from error
        raise UserError(where, f"is not valid YAML ({problem})", "Correct the line; indent with spaces") from error


def composed(text: str) -> str:
    """Returns a text with letters and their accents as one character each, as text encoders read it."""
    return unicodedata.normalize("NFC", text)


def expanded(text: str) -> Path:
    """Returns a path with ``~`` replaced by the home folder; as it is where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def configs_folder() -> Path:
    """Returns the folder of the configuration files that ship."""
    return Path(str(files("cns_lightning") / CONFIGS))


def shipped(given: str) -> Path:
    """Returns the path of a configuration file as it is given; where there is none, that of one that ships.

    ``configs/methods/cns.yaml``, ``methods/cns.yaml`` and ``methods/cns`` name the same one.

    Args:
        given: path or name; returned as it is where nothing of that name ships either.
    """
    path = Path(given)
    if not given.strip() or path.exists() or path.is_absolute() or ".." in path.parts:
        return path
    parts = path.parts[1:] if path.parts[0] == CONFIGS else path.parts
    named = configs_folder().joinpath(*parts)
    found = named if named.suffix == ".yaml" else named.with_name(f"{named.name}.yaml")
    return found if parts and found.is_file() else path


def with_shipped_configs(arguments: list[str]) -> list[str]:
    """Returns a command line in which names of configuration files that ship are paths, as is what begins with ``~``.

    Args:
        arguments: words after a command.
    """
    found = list(arguments)
    for number, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option == "--config" and equals:
            found[number] = f"{option}={shipped(str(expanded(value)))}" if value else word
        elif number and arguments[number - 1] in _CONFIG_OPTIONS and not word.startswith("-"):
            found[number] = str(shipped(str(expanded(word)))) if word else word
    return found


def with_names_of_shipped(arguments: list[str]) -> list[str]:
    """Returns a command line as a person would write it: paths of files that ship are their names again."""
    found = []
    for word in arguments:
        option, equals, value = word.rpartition("=")
        path = Path(value)
        is_shipped = path.is_absolute() and path.is_relative_to(configs_folder())
        named = path.relative_to(configs_folder()).with_suffix("").as_posix() if is_shipped else value
        found.append(f"{option}{equals}{named}")
    return found


def command_line(words: Iterable[str]) -> str:
    """Returns one of our commands as it can be typed in this shell: with the program, or the Python, that runs now.

    Args:
        words: the command and what follows it; paths of files that ship become their names.
    """
    return shlex.join([*_program(), *with_names_of_shipped(list(words))])


def _program() -> list[str]:
    called = Path(sys.argv[0])
    if called.stem == SCRIPT:
        return [_typed(SCRIPT, called)]
    return [_typed("python", Path(sys.executable)), "-m", "cns_lightning"]


def _typed(name: str, path: Path) -> str:
    """Returns the bare name of a program where a shell finds it by that, else its path, short where it lies below."""
    whole, found = Path(os.path.abspath(path)), shutil.which(name)
    if found is not None and Path(os.path.abspath(found)) == whole:
        return name
    here = Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
