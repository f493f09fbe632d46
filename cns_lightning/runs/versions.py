"""Which versions of Python and the libraries a process runs with."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("cns-lightning", "torch", "lightning", "diffusers", "transformers", "safetensors")


@cache
def library_versions() -> str:
    """Returns the versions of Python and of the libraries that what is learned depends on, on one line."""
    found = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # this package, in a checkout that is not installed
            continue
    return ", ".join(found)
