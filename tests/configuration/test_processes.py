"""Processes of a run know of each other, or are refused before they wait for ever."""

import inspect
import os
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop as TrainingEpochLoop
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cns_lightning.cli.main import main
from cns_lightning.configuration.processes import STAGED_DDP, check_group, choose_strategy
from cns_lightning.errors import UserError
from tests.runs.learning import arguments, write_sequence


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


def test_lightning_still_has_the_exchange_that_is_switched_off() -> None:
    # Under another name it would wait for the device at every batch again, unnoticed.
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(TrainingEpochLoop.advance)


@pytest.mark.parametrize("named", ["auto", "ddp", STAGED_DDP])
def test_one_process_has_no_strategy_and_several_have_ours(named: str) -> None:
    for devices, expected in ((1, "auto"), (2, STAGED_DDP)):
        trainer = Namespace(devices=devices, num_nodes=1, accelerator="cpu", strategy=named)
        choose_strategy(trainer)
        assert getattr(trainer.strategy, "class_path", trainer.strategy) == expected


def test_open_devices_become_a_number_and_older_runs_that_left_them_open_go_on(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "two", ["cat", "dog"]), tmp_path / "run"
    words = arguments(tiny_base_model, sequence, run, "--trainer.devices", "auto")
    assert main(words) == 0
    config = run / "config.yaml"
    kept = yaml.safe_load(config.read_text("utf-8"))
    assert kept["settings"]["trainer.devices"] == 1
    config.write_text(yaml.safe_dump({**kept, "settings": {**kept["settings"], "trainer.devices": "auto"}}), "utf-8")
    assert main(words) == 0, capsys.readouterr().err
