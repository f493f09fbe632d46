"""Where an export is written: earlier exports give way, nothing else does."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from cns_lightning.errors import UserError
from cns_lightning.export.folder import MARKER, check_folder, claimed_folder, fresh_folder


def write(out: Path, files: dict[str, str], what: str = "webui") -> None:
    """Exports some text files."""
    with claimed_folder(out, what), fresh_folder(out, what, {"stems": {}}) as folder:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)


def content(out: Path) -> dict[str, str]:
    found = {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}
    return {name: text for name, text in found.items() if name != MARKER}


def test_an_earlier_export_is_replaced_and_strangers_stay(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write(out, {"a.txt": "1", "part/b.txt": "1", "old/c.txt": "1"})
    (out / "mine.txt").write_text("mine")
    write(out, {"a.txt": "2", "part/b.txt": "1"})
    assert content(out) == {"a.txt": "2", "part/b.txt": "1", "mine.txt": "mine"}
    assert not (out / "old").exists()
    assert "replaced" not in json.loads((out / MARKER).read_text())
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "1"})
    assert content(tmp_path) == {"a.txt": "1"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("full", "is not empty, and is not an earlier export"),
        ("file", "is a file, and"),
        ("x.safetensors", "is the name of a file"),
    ],
)
def test_other_places_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").touch()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=message):
        check_folder(tmp_path / name, "webui")
    assert (tmp_path / "full" / "photo.jpg").exists()


def test_what_was_changed_since_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, {"README.md": "card", "a.txt": "1"})
    (out / "README.md").write_text("card with a licence")
    with pytest.raises(UserError, match=r"changed since they were exported: README\.md"):
        check_folder(out, "webui")
    (out / "README.md").unlink()
    write(out, {"README.md": "card", "a.txt": "2"})
    assert content(out) == {"README.md": "card", "a.txt": "2"}


def test_an_export_of_another_format_is_not_replaced(tmp_path: Path) -> None:
    write(tmp_path / "out", {"a.txt": "1"}, "shira")
    with pytest.raises(UserError, match=r"holds an export of another format \(shira\)"):
        check_folder(tmp_path / "out", "webui")


def test_a_file_in_the_way_stops_the_export_and_changes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, {"a.txt": "1"})
    (out / "b.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds a file b\.txt that is not the export's"):
        write(out, {"a.txt": "2", "b.txt": "2"})
    assert content(out) == {"a.txt": "1", "b.txt": "mine"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, UserError("x", "y", "z")])
def test_a_failed_export_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail() -> None:
        with claimed_folder(tmp_path / "out", "webui"), fresh_folder(tmp_path / "out", "webui", {}) as folder:
            (folder / "a.txt").touch()
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        fail()
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(error if isinstance(error, type) else type(error)):
        fail()
    assert (tmp_path / "out").is_dir(), "it is the user's"


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    def fail() -> None:
        with claimed_folder(tmp_path / "out", "webui"), fresh_folder(tmp_path / "out", "webui", {}):
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(UserError, match=r"could not be written: .*No space left"):
        fail()


def test_an_export_that_died_in_the_middle_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write(out, {"a.txt": "1", "b.txt": "1", "c.txt": "1"})
    replace, done = os.replace, []

    def dying(source: Path, target: Path) -> None:
        if Path(source).suffix == ".txt":
            done.append(source)
            if len(done) == 2:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("cns_lightning.export.folder.os.replace", dying)
    with pytest.raises(KeyboardInterrupt):
        write(out, {"a.txt": "2", "b.txt": "2", "d.txt": "2"})
    monkeypatch.undo()
    assert content(out) == {"a.txt": "2", "b.txt": "1", "c.txt": "1"}, "between both"
    write(out, {"a.txt": "3", "d.txt": "3"})
    assert content(out) == {"a.txt": "3", "d.txt": "3"}


def test_what_a_killed_export_left_is_cleared(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / "out" / f".export-{gone.pid}-0123abcd"
    left.mkdir(parents=True)
    (left / "a.txt").touch()
    write(tmp_path / "out", {"a.txt": "1"})
    assert not left.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell whether a process is alive")
def test_what_another_export_is_writing_stays(tmp_path: Path) -> None:
    running = tmp_path / "out" / f".export-{os.getpid()}-0123abcd"
    running.mkdir(parents=True)
    write(tmp_path / "out", {"a.txt": "1"})
    assert running.is_dir()


def test_a_folder_of_the_users_is_no_leftover(tmp_path: Path) -> None:
    own = tmp_path / "out" / ".export-notes"
    own.mkdir(parents=True)
    with pytest.raises(UserError, match="is not empty"):
        check_folder(tmp_path / "out", "webui")
    assert own.is_dir()


def test_a_marker_cannot_reach_out_of_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, {"a.txt": "1"})
    (tmp_path / "precious.txt").write_text("1")
    marker = json.loads((out / MARKER).read_text())
    digest = marker["files"]["a.txt"]
    names = ["../precious.txt", str(tmp_path / "precious.txt")]
    (out / MARKER).write_text(json.dumps({**marker, "files": dict.fromkeys(names, digest)}))
    (out / "a.txt").unlink()
    write(out, {"a.txt": "2"})
    assert (tmp_path / "precious.txt").read_text() == "1"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with claimed_folder(tmp_path / "out", "webui"), fresh_folder(tmp_path / "out", "webui", {}) as folder:
        (folder / "a.txt").touch(mode=0o600)
    assert stat.S_IMODE((tmp_path / "out" / "a.txt").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "usual").stat().st_mode
    )
