"""Checkpoint files: whole or not used."""

from pathlib import Path

import pytest
import torch

from cns_lightning.errors import UserError
from cns_lightning.runs.checkpoint_file import DamagedCheckpoint, SealedCheckpointIO, newest_checkpoint


def save(path: Path, number: int) -> None:
    SealedCheckpointIO().save_checkpoint({"number": number, "tensor": torch.full((3,), float(number))}, path)


def number(path: Path | None) -> int:
    assert path is not None
    return SealedCheckpointIO().load_checkpoint(path)["number"]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    save(tmp_path / "last.ckpt", 1)
    assert torch.equal(SealedCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")["tensor"], torch.ones(3))


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        save(tmp_path / "last.ckpt", value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert (number(tmp_path / "last.ckpt"), number(tmp_path / "previous.ckpt")) == (3, 2)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damage_is_found_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    last = tmp_path / "last.ckpt"
    save(last, 1)
    save(last, 2)
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes({"cut": bytes(data[: len(data) // 2]), "flipped": bytes(data), "empty": b""}[damage])
    with pytest.raises(DamagedCheckpoint):
        SealedCheckpointIO().load_checkpoint(last)
    told: list[str] = []
    assert number(newest_checkpoint(last, told.append)) == 1
    assert "last.ckpt: cannot be used" in told[0]


def test_every_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    last, moves = tmp_path / "last.ckpt", 0
    save(last, 0)
    real = os.replace
    for value in range(1, 4):
        # Dies before the value-th rename of a save: the temporary file's, that of the old one, that of the new one.
        moves = 0

        def dying(source: Path, target: Path, stop: int = value) -> None:
            nonlocal moves
            moves += 1
            if moves == stop:
                raise KeyboardInterrupt
            real(source, target)

        monkeypatch.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            save(last, value)
        monkeypatch.setattr(os, "replace", real)
        assert number(newest_checkpoint(last, lambda text: None)) in (value - 1, value)
        save(last, value)


def test_nothing_and_nothing_whole(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    assert newest_checkpoint(last, lambda text: None) is None
    last.write_bytes(b"torn")
    with pytest.raises(UserError, match="holds no checkpoint that is whole"):
        newest_checkpoint(last, lambda text: None)


def test_what_a_kill_left_does_not_win_over_what_is_saved_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    last, real = tmp_path / "last.ckpt", os.replace
    save(last, 0)

    def dying(source: Path, target: Path) -> None:  # between the two renames of a save
        if Path(target).name == "last.ckpt":
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        save(last, 1)
    monkeypatch.setattr(os, "replace", real)
    assert number(newest_checkpoint(last, lambda _: None)) == 1
    save(last, 2)
    assert number(newest_checkpoint(last, lambda _: None)) == 2
