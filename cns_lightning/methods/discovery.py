"""Which methods there are: every file in ``configs/methods`` names one."""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from pathlib import Path


def method_configs() -> dict[str, Path]:
    """Returns the configuration file of every method that ships, by name, in alphabetical order."""
    folder = Path(str(files("cns_lightning") / "configs" / "methods"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def display_name_of(class_path: str) -> str:
    """Returns the name of a run's method as people write it; of a class that is gone, that of its module in words."""
    module, _, name = class_path.rpartition(".")
    try:
        own = getattr(import_module(module), name).display_name
    except (ImportError, AttributeError):
        own = ""
    return own or display_name(module.rpartition(".")[2])


def display_name(method: str) -> str:
    """Returns a method's name as people write it; that of an unknown one in words."""
    from cns_lightning.methods.base import Method

    if method in method_configs():
        module = import_module(f"cns_lightning.methods.{method}")
        own = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Method)]
        named = [each.display_name for each in own if each.__module__ == module.__name__ and each.display_name]
        if named:
            return named[0]
    return method.replace("_", " ").title()
