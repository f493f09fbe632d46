"""Reads the YAML files that describe experiments; all problems of a file are said at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cns_lightning.errors import Problems, UserError
from cns_lightning.user_files import read_yaml, shipped

if TYPE_CHECKING:
    from collections.abc import Iterable

SAID_BY = {"seed_everything": "seeds", "data.sequence": "sets", "run": "--out", "config": "stack"}
"""Keys of `fit` that other keys of the file, or the command line, set for every run."""


class ExperimentFile:
    """A YAML file of known keys, and what is wrong with it.

    Args:
        path: path of the file.
        keys: all that it may hold.
        example: a file that shows how it is done.

    Raises:
        UserError: if it cannot be read or holds no keys.
    """

    def __init__(self, path: Path, keys: tuple[str, ...], example: str) -> None:
        self.path, self.example, self.problems = path, example, Problems()
        content = read_yaml(path, f"Give a file such as {example}")
        if not isinstance(content, dict):
            raise UserError(str(path), "holds no keys", f"Give {', '.join(keys)}")
        self.content: dict[str, Any] = content
        self.known("", content, keys)

    def add(self, key: str, problem: str, remedy: str = "") -> None:
        """Notes a fault."""
        self.problems.add(f"{self.path}: {key}", problem, remedy or f"See {self.example}")

    def known(self, key: str, entry: dict[Any, Any], keys: tuple[str, ...]) -> None:
        """Notes every key of an entry that is none of the known ones."""
        for name in entry:
            if name not in keys:
                self.add(f"{key}.{name}" if key else str(name), "is an unknown key", f"Use {', '.join(keys)}")

    def mapping(self, key: str, value: Any) -> dict[str, Any]:
        """Returns a mapping with words for keys that is not empty; notes a fault otherwise."""
        if not isinstance(value, dict) or not value:
            self.add(key, "is missing" if value is None else f"is {value!r} where names with values are needed")
            return {}
        for name in value:
            if not isinstance(name, str) or not name.strip() or "/" in name:
                self.add(f"{key}.{name}", "is not a name", "Use a word in letters")
        return {str(name): each for name, each in value.items()}

    def settings(self, key: str, value: Any) -> dict[str, Any]:
        """Returns values by configuration key."""
        found = self.mapping(key, value)
        for name, each in found.items():
            if isinstance(each, dict):
                self.add(f"{key}.{name}", "holds keys where a value is needed", "Write one key per line, with dots")
        return found

    def settings_of_fit(self, key: str, value: Any) -> dict[str, Any]:
        """Returns values by configuration key that `fit` gets besides what other keys of the file say."""
        found = self.settings(key, value)
        self.not_said_elsewhere(key, found)
        return found

    def not_said_elsewhere(self, key: str, names: Iterable[str]) -> None:
        """Notes configuration keys that would override what every run is named by."""
        for name in names:
            if name in SAID_BY:
                self.add(f"{key}.{name}", f"is said by {SAID_BY[name]}, for every run", f"Use {SAID_BY[name]}")

    def values(self, key: str, value: Any) -> list[Any]:
        """Returns a list of values of any kind, at least one."""
        if not isinstance(value, list) or any(isinstance(each, dict) for each in value):
            self.add(key, f"is {value!r} where a list of values is needed", f"Write {key.split('.')[-1]}: [...]")
            return []
        if not value:
            self.add(key, "lists no value to try")
        return value

    def words(self, key: str, value: Any) -> tuple[str, ...]:
        """Returns a list of words and numbers as words; nothing for nothing."""
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(each, str | int | float) for each in value):
            self.add(key, f"is {value!r} where a list of words is needed", f"Write {key.split('.')[-1]}: [...]")
            return ()
        return tuple(str(each) for each in value)

    def numbers(self, key: str, value: Any) -> tuple[int, ...]:
        """Returns a list of different whole numbers; nothing for nothing."""
        if value is None:
            return ()
        is_list = isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)
        if not is_list or len(set(value)) < len(value):
            self.add(key, f"is {value!r} where a list of different whole numbers is needed", f"Write {key}: [0, 1, 2]")
            return ()
        return tuple(value)

    def count(self, key: str, value: Any, least: int, usual: int) -> int:
        """Returns a whole number of at least ``least``; the usual one for nothing."""
        if value is None:
            return usual
        if type(value) is not int or value < least:
            self.add(
                key, f"is {value!r} where a whole number of at least {least} is needed", f"Write {key}: {least + 1}"
            )
            return usual
        return value

    def files(self, key: str, value: Any) -> tuple[str, ...]:
        """Returns a list of files that exist, at least one."""
        found = tuple(str(shipped(name)) for name in self.words(key, value))
        if value is None or value == []:
            self.add(key, "names no file")
        for name in found:
            if not Path(name).is_file():
                self.add(f"{key}: {name}", "there is no such file", "Paths are relative to where the command runs")
        return found
