"""Files that are whole or not there: atomic writing, checksums, safetensors with a header, fingerprints.

Nothing here knows what the files mean. The same content always gives the same bytes, so that runs can be compared by
their checksums.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PARTIAL = ".partial"
"""Ending of files that are being written; what still has it after a crash is worthless."""

FACTS = "facts"
"""The one key of a header's metadata: with several, safetensors writes them in an order that differs from call to call.

Its value is the JSON of all facts. Files that were written before have a key for each.
"""


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that a crash at any moment leaves either the old content or the new.

    The data go to a temporary file in the same folder (a rename is atomic only within a file system), which is synced
    and renamed; then the folder is synced. Missing folders are made.

    Raises:
        UserError: if the file system refuses: no permission, no space, no such place. The old content is intact.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_synced(partial, data)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(str(path), f"could not be written: {reason}", _remedy(error)) from error


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space and run the same command again; what was there before is intact"
    return "Choose a folder you may write to, or correct its permissions"


def _write_synced(path: Path, data: bytes) -> None:
    # Not tempfile: its files are readable by their owner alone, and a run folder is often shared.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows opens no folders, and keeps renames itself.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; they order renames themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Deletes what killed processes left half written in a folder; only the folder's one writer may call this."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def read_bytes(path: Path) -> bytes:
    """Reads a whole file.

    Raises:
        UserError: if it is not there or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(str(path), f"cannot be read: {reason}", "Check the path, or restore the file")


def json_bytes(content: object) -> bytes:
    """Returns the indented JSON text that `write_json` writes, UTF-8, with a line end."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def write_json(path: Path, content: object) -> None:
    """Writes readable JSON atomically; raises what `write_atomically` raises."""
    write_atomically(path, json_bytes(content))


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: if it is not there or holds something else.
    """
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise UserError(str(path), f"is not valid JSON ({error})", "Restore the file from a copy") from error


def csv_bytes(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> bytes:
    """Returns rows as CSV with a heading, UTF-8; what a row lacks stays empty.

    Args:
        rows: values by column.
        columns: columns in order; None takes those of the rows as they come up.
    """
    names = columns if columns is not None else list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's content, as hexadecimal; of the file, however large, little is held at a time.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def sha256_of_facts(facts: list[Any]) -> str:
    """Returns the SHA-256 of plain values, as hexadecimal: what something was made from, as a key to find it again."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def tensor_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Packs tensors and facts into the safetensors format; equal content gives equal bytes.

    Args:
        tensors: tensors by name, any device and layout.
        metadata: kept in the header, as one JSON text under `FACTS`.

    Raises:
        ValueError: if a dtype has no place in the format.
    """
    # Cloned: the format has no place for tensors that share memory.
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    facts = json.dumps(dict(sorted(metadata.items())), ensure_ascii=False)
    return save_tensors(whole, {FACTS: facts} if metadata else None)


def tensors_from_bytes(data: bytes, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Unpacks tensors, on the CPU, and metadata from the safetensors format.

    Args:
        data: content of a file.
        source: its path, for messages.

    Raises:
        UserError: if the data are damaged or something else.
    """
    try:
        tensors = load_tensors(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = dict(header.get("__metadata__") or {})
        facts = json.loads(metadata[FACTS]) if metadata.keys() == {FACTS} else metadata
    except (SafetensorError, ValueError) as error:
        raise UserError(source, f"is damaged or not a safetensors file ({error})", "Restore it from a copy") from error
    return tensors, facts


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file atomically; raises what `tensor_bytes` and `write_atomically` raise."""
    write_atomically(path, tensor_bytes(tensors, metadata))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a safetensors file: tensors by name, on the CPU, and the header's metadata.

    Raises:
        UserError: if it is not there, damaged or something else.
    """
    return tensors_from_bytes(read_bytes(path), str(path))


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 over names, dtypes, shapes and bits of tensors, whatever their order and device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
