"""Processes of a run know of each other, or are refused before they wait for ever."""

import os

import pytest
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cns_lightning.configuration.processes import check_group
from cns_lightning.errors import UserError


@pytest.fixture(autouse=True)
def plain_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes out what a shell may say of processes; puts back what a test sets."""
    for name in ("SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rank_zero_only, "rank", 0)


def test_a_rank_that_an_earlier_group_left_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    check_group(processes=1, nodes=1)
    assert "RANK" not in os.environ
    assert rank_zero_only.rank == 0


def test_a_process_that_lightning_starts_keeps_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    check_group(processes=2, nodes=1)
    assert os.environ["LOCAL_RANK"] == "1"


def test_processes_of_torchrun_that_would_each_train_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="is 1, and torchrun has started 2 processes"):
        check_group(processes=1, nodes=1)
    check_group(processes=2, nodes=1)


def test_a_machine_that_does_not_know_which_it_is_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"trainer\.num_nodes: is 2, and nothing says which"):
        check_group(processes=2, nodes=2)
    monkeypatch.setenv("NODE_RANK", "1")
    check_group(processes=2, nodes=2)
