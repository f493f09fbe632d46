"""Two processes on one machine: the same weights as one, left together, continued exactly."""

import signal
from pathlib import Path

import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.metrics import read_rows
from tests.runs.learning import arguments
from tests.runs.processes import assert_same, in_two_processes, two_processes

# Of float32 sums in another order, through 2 x 4 steps of AdamW.
TOLERANCE = 1e-5


def test_two_processes_learn_what_one_learns(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, sequence, run = pair
    other = tmp_path / "run"
    assert main(arguments(base, sequence, other, "--data.batch_size", "4", steps=4)) == 0
    one, two = NeuronRegistry.load(other / "registry"), NeuronRegistry.load(run / "registry")
    for token in one.tokens:
        assert torch.equal(one.embedding(token), two.embedding(token)) or torch.allclose(
            one.embedding(token), two.embedding(token), rtol=0, atol=TOLERANCE
        )
        first, second = one.mask(token), two.mask(token)
        assert all(torch.equal(first[name], second[name]) for name in first)
    after, weights = two.weights(), one.weights()
    assert all(torch.allclose(weights[name], after[name], rtol=0, atol=TOLERANCE) for name in weights)
    rows = [read_rows(folder / "metrics.csv") for folder in (other, run)]
    losses = [[float(row["loss"]) for row in each if row["loss"]] for each in rows]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_token_that_learns_first_does_so_in_two_processes_and_over_accumulated_batches(
    pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    base, sequence, _ = pair
    first = ("--model.method.token_first", "0.5", "--model.method.balance_steps", "1")
    done = in_two_processes(base, sequence, tmp_path / "two", "0:0:SIGTERM", *first)
    assert done.returncode == 0, done.stderr
    parts = ("--trainer.accumulate_grad_batches", "2")
    assert main(arguments(base, sequence, tmp_path / "parts", *first, *parts, steps=4)) == 0
    assert main(arguments(base, sequence, tmp_path / "one", *first, "--data.batch_size", "4", steps=4)) == 0
    one = NeuronRegistry.load(tmp_path / "one" / "registry")
    for other in (NeuronRegistry.load(tmp_path / name / "registry") for name in ("two", "parts")):
        for token in one.tokens:
            record, expected = other.record(token), one.record(token)
            assert torch.allclose(record.embeddings[0], expected.embeddings[0], rtol=0, atol=TOLERANCE)
            assert expected.values.any()
            assert torch.allclose(record.values, expected.values, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("plan", ["1:3:SIGKILL", "0:6:SIGKILL", "1:6:SIGTERM"])
def test_a_stopped_pair_goes_on_exactly(pair: tuple[Path, Path, Path], tmp_path: Path, plan: str) -> None:
    base, sequence, run = pair
    other, saving = tmp_path / "run", ("--checkpoint.every_steps", "1")
    code, seconds = two_processes(base, sequence, other, plan, *saving)
    if plan.endswith("SIGTERM"):
        assert code == 128 + signal.SIGTERM
    else:
        assert code != 0
        # Far below the half hour after which a collective gives up by itself.
        assert seconds < 30
    assert two_processes(base, sequence, other, "0:0:SIGTERM", *saving)[0] == 0
    assert_same(other, run)


def test_ranks_that_see_different_things_stop(pair: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, sequence, _ = pair
    done = in_two_processes(base, sequence, tmp_path / "run", "1:0:DISAGREE")
    assert done.returncode == 2
    assert "rank 1: sees another neurons than rank 0" in done.stderr
