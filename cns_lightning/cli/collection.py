"""Holds Python's garbage collector back while libraries are imported."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def collection_held_back() -> Iterator[None]:
    """Collects no garbage inside, and leaves out of all later collections what came to be there.

    Modules, classes and functions stay until the process ends. While they are made the collector goes through all of
    them again and again, which takes a good part of an import. Does nothing inside another one.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
