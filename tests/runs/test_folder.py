"""Run folders: made, opened, refused."""

from pathlib import Path

import pytest

from cns_lightning.errors import UserError
from cns_lightning.runs.folder import RunFolder


def test_folder_is_made(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "run")
    folder.create()
    assert folder.samples.is_dir()
    assert list(folder.samples.iterdir()) == []


def test_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*Choose another folder"):
        RunFolder(tmp_path / "file" / "run").create()


def test_missing_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        RunFolder.existing(tmp_path / "none")
    with pytest.raises(UserError, match="is not a run folder"):
        RunFolder.existing(tmp_path)
