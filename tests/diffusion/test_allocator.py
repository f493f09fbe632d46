import subprocess
import sys

import pytest

# Thirty-two blocks of a megabyte, again and again: a system that gets them back has to clear their pages each time.
ROUNDS = """
import resource, sys
from cns_lightning.diffusion.allocator import keep_freed_memory
kept = sys.argv[1] == "kept"
assert not kept or keep_freed_memory()
import torch
def once():
    return [torch.empty(1 << 18).fill_(0) for _ in range(32)]
once(); once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is what is told")
def test_memory_that_is_freed_is_used_again() -> None:
    faults = {
        name: int(
            subprocess.run([sys.executable, "-c", ROUNDS, name], capture_output=True, text=True, check=True).stdout
        )
        for name in ("kept", "given back")
    }
    assert 10 * faults["kept"] < faults["given back"], faults
