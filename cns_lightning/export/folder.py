"""The folder that an export writes: made whole or not at all, and nobody else's files touched."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from cns_lightning.errors import UserError
from cns_lightning.runs.folder import make_folder
from cns_lightning.storage import read_json, sha256_of, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MARKER = "export.json"
"""What tells an export's folder: what was exported, and the SHA-256 of every file."""
_UNFINISHED = re.compile(r"\.export-(\d+)-[0-9a-f]{8}")
"""Working folder of an export, by the number of its process."""
_FILE_ENDINGS = (".safetensors", ".json", ".zip")
_REMEDY = "Give a new or empty folder"


def check_folder(out: Path, what: str) -> None:
    """Refuses a place that holds something else than an earlier export of the same format, as it was written.

    Args:
        out: folder of the export; it need not exist.
        what: the format.

    Raises:
        UserError: if it is a file, cannot be written to, or holds files that would be lost.
    """
    where = f"--out {out}"
    if out.exists() and not out.is_dir():
        raise UserError(where, f"is a file, and --format {what} writes several files", _REMEDY)
    if not out.is_dir() and out.suffix.lower() in _FILE_ENDINGS:
        raise UserError(where, f"is the name of a file, and --format {what} writes several files", _REMEDY)
    if not out.is_dir() or not _entries(out):
        make_folder(out, where)
        return
    if not (out / MARKER).is_file():
        raise UserError(where, "is not empty, and is not an earlier export", _REMEDY)
    found = read_json(out / MARKER)
    if not isinstance(found, dict) or found.get("format") != what:
        kind = found.get("format") if isinstance(found, dict) else None
        raise UserError(where, f"holds an export of another format ({kind})", _REMEDY)
    changed = [name for name, sums in _named(found).items() if _is_changed(out / name, sums)]
    if changed:
        problem = f"holds files that were changed since they were exported: {', '.join(sorted(changed))}"
        raise UserError(where, problem, "Keep them elsewhere and delete them here, or give another folder")
    make_folder(out, where)


@contextmanager
def claimed_folder(out: Path, what: str) -> Iterator[None]:
    """Checks the place of an export, as `check_folder`; if the block raises, no new empty folder is left there.

    Raises:
        UserError: as `check_folder`.
    """
    is_new = not out.exists()
    check_folder(out, what)
    try:
        yield
    except BaseException:
        if is_new and not any(out.iterdir()):
            out.rmdir()
        raise


def _entries(out: Path) -> list[Path]:
    return [path for path in out.iterdir() if _UNFINISHED.fullmatch(path.name) is None]


def _leftovers(out: Path) -> Iterator[Path]:
    """Yields the working folders of exports whose processes are gone."""
    for path in out.iterdir():
        if (found := _UNFINISHED.fullmatch(path.name)) is not None and not _is_alive(int(found[1])):
            yield path


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where to ask would be to end it
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _named(marker: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns every file that a marker calls an export's own, with the checksums that it may have."""
    found: dict[str, list[str]] = {}
    for part in ("files", "replaced"):
        for name, digest in marker.get(part, {}).items():
            path = PurePosixPath(name)
            if not path.is_absolute() and ".." not in path.parts:
                found.setdefault(name, []).append(digest)
    return found


def _is_changed(path: Path, sums: list[str]) -> bool:
    return path.exists() and sha256_of(path) not in sums


@contextmanager
def fresh_folder(out: Path, what: str, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Returns an empty folder to write into; its files are put in their places when all are written.

    An earlier export's files are replaced, or deleted where this one has none of the name; others stay. If the block
    raises, everything is as it was.

    Args:
        out: folder of the export, which `claimed_folder` has let pass.
        what: the format.
        facts: what the marker says besides.

    Raises:
        UserError: if a file of the user's is in the way, or weights cannot be written.
    """
    for left in list(_leftovers(out)):
        shutil.rmtree(left, ignore_errors=True)
    inside = out / f".export-{os.getpid()}-{secrets.token_hex(4)}"
    inside.mkdir()
    try:
        yield inside
        _publish(inside, out, what, facts)
    except SafetensorError as error:  # what it makes of a full disk, among others
        raise UserError(
            f"--out {out}", f"could not be written: {error}", "Free some space, or give another disk"
        ) from error
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def _publish(inside: Path, out: Path, what: str, facts: Mapping[str, Any]) -> None:
    earlier = read_json(out / MARKER) if (out / MARKER).is_file() else {}
    names = sorted(str(path.relative_to(inside).as_posix()) for path in inside.rglob("*") if path.is_file())
    own = _named(earlier)
    probe = inside / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    for name in names:
        if name not in own and (out / name).exists():
            raise UserError(f"--out {out}", f"holds a file {name} that is not the export's", _REMEDY)
        _finish(inside / name, mode)
    marker = {"format": what, "program": "cns-lightning", **facts, "files": {n: sha256_of(inside / n) for n in names}}
    # First, so that whatever is there if this process dies now is known as an export's own.
    there = {n: sums[0] if len(sums) == 1 else sha256_of(out / n) for n, sums in own.items() if (out / n).exists()}
    write_json(out / MARKER, {**marker, "replaced": there})
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(inside / name, out / name)
    for name in own.keys() - set(names):
        (out / name).unlink(missing_ok=True)
        _remove_empty((out / name).parent, out)
    write_json(out / MARKER, marker)


def _finish(path: Path, mode: int) -> None:
    """Sets the usual permissions of a file, which safetensors' writer does not, and syncs it."""
    path.chmod(mode)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove_empty(folder: Path, out: Path) -> None:
    while folder != out and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
