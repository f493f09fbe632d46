import ctypes
import os
import subprocess
import sys

import pytest

# Thirty-two blocks of a megabyte are asked for and freed; the C library says what it then holds of them. The page
# faults of the process would say the same, but not every machine counts them.
ROUND = """
import ctypes, sys
from cns_lightning.diffusion.allocator import keep_freed_memory
kept = sys.argv[1] == "kept"
assert not kept or keep_freed_memory()
import torch
FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
class Figures(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Figures
before = mallinfo2().hblks
blocks = [torch.empty(1 << 18).fill_(0) for _ in range(32)]
mapped = mallinfo2().hblks - before
del blocks
after = mallinfo2()
print(mapped, after.arena + after.hblkhd)
"""


def held(name: str) -> tuple[int, int]:
    """How many blocks were mapped by themselves while in use, and the bytes the library holds once they are freed."""
    # A threshold that is set does not grow with what was freed before.
    fixed = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 17)}
    done = subprocess.run([sys.executable, "-c", ROUND, name], capture_output=True, text=True, check=True, env=fixed)
    mapped, size = map(int, done.stdout.split())
    return mapped, size


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallinfo2"),
    reason="glibc of 2.33 or later says what it holds",
)
def test_memory_that_is_freed_is_kept_for_the_next_request() -> None:
    kept, given_back = held("kept"), held("given back")
    assert (kept[0], given_back[0]) == (0, 32)
    assert kept[1] >= given_back[1] + 24 * (1 << 20), (kept, given_back)
