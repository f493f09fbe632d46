"""A run folder that is full, and one that another process writes to: one sentence, nothing lost."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cns_lightning.cli.main import main
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import PARTIAL
from tests.runs.learning import arguments, write_sequence


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Returns a file system of 200 kB in memory; making one wants root."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be made here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk_is_said_and_the_run_goes_on_when_there_is_room(
    tiny_base_model: Path, tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat", "dog"])
    whole, run = tmp_path / "whole", small_disk / "run"
    assert main(arguments(tiny_base_model, sequence, whole)) == 0
    filler = small_disk / "filler"
    # Less room every time: the run is stopped at the configuration, at a checkpoint, at a file of the registry.
    for room in (1, 8, 20, 40):
        free = os.statvfs(small_disk)
        size = filler.stat().st_size if filler.exists() else 0
        filler.write_bytes(bytes(max(0, size + free.f_bavail * free.f_frsize - room * 1024)))
        code = main(arguments(tiny_base_model, sequence, run, "--checkpoint.every_steps", "1"))
        said = capsys.readouterr().err
        assert code == 2, said
        assert "Free some space" in said
        assert "Traceback" not in said
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert main(arguments(tiny_base_model, sequence, run, "--checkpoint.every_steps", "1")) == 0
    names = ("registry/000-new1.safetensors", "registry/001-new2.safetensors", "metrics.csv", "samples/stage-1.png")
    for name in names:
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_a_folder_that_is_written_to_is_refused(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "sequence", ["cat"]), tmp_path / "run"
    assert main(arguments(tiny_base_model, sequence, run)) == 0
    longer = write_sequence(tmp_path / "longer", ["cat", "dog"])
    with RunFolder(run).held():
        assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 2
        assert f"another process is writing there (process {os.getpid()} on" in capsys.readouterr().err
        assert main(["concepts", "--run", str(run)]) == 0
        other = tmp_path / "other"
        other.mkdir()
        with RunFolder(other).held():
            assert main(arguments(tiny_base_model, longer, other)) == 2
        assert {path.name for path in other.iterdir() if path.is_file()} <= {".lock"}
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0


def test_what_a_killed_process_left_half_written_goes_at_the_next_start(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create()
    leftover, other = (place / f".last.ckpt.1-ab{PARTIAL}" for place in (folder.checkpoints, folder.evaluation))
    folder.evaluation.mkdir()
    for path in (leftover, other, folder.last_checkpoint):
        path.touch()
    with folder.held():
        assert not leftover.exists()
    assert other.exists(), "test may be writing it just now"
    assert folder.last_checkpoint.exists()
