"""What the C library does with memory that is freed: every step of a training on a CPU asks for the same again."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets glibc keep what is freed for the next request, in place of giving it back to the system.

    Large tensors are otherwise mapped anew in every step, and the system clears each page of them; docs/performance.md
    has what that costs. The process stays at its peak of memory.

    Returns:
        Whether the C library has taken it; false where it is another one, as on macOS, Windows and Alpine.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # -1 never trims; nothing is mapped by itself, so that all of it can be used again.
    return bool(mallopt(_TRIM_THRESHOLD, -1)) and bool(mallopt(_MMAP_MAX, 0))
