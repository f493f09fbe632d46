"""A run that dies again and again in the middle of its writes ends like one that never did.

`benchmarks.kill` does the same at random.
"""

import random
from pathlib import Path

from benchmarks.kill import Bench, contents

# Part of a file's name, which write to it within one start, and how far it gets.
PLANS = (
    "general:1:0.5",  # before the first step
    "last.ckpt:1:rename",  # no last.ckpt at this moment
    "-new:1:renamed",  # the registry's index does not know the file yet
    "registry.json:1:1",  # nothing of the first stage is known to the checkpoint
    ".png:1:0.99",
    "last:2:rename",
)


def test_killed_runs_end_like_an_uninterrupted_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 1, 3, random.Random(0))
    expected, _ = bench.reference()
    run = tmp_path / "run"
    for plan in PLANS:
        assert bench.start(run, plan).wait() == -9, plan
        bench.look_at(run)
    assert bench.start(run).wait() == 0
    assert contents(run) == expected
    assert not bench.tally.differences
