"""Checkpoint files: written whole or not at all, checked when they are read, the one before kept.

A file is what torch writes, followed by its SHA-256. `LAST` becomes ``previous.ckpt`` before a new one takes its
name, so that at every moment one of the two is whole.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from cns_lightning.errors import UserError
from cns_lightning.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

SEAL = b"\nsha256 "
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class DamagedCheckpoint(Exception):
    """A checkpoint file whose content is not what was written."""


class SealedCheckpointIO(TorchCheckpointIO):
    """Reads and writes checkpoints for Lightning.

    Lightning's own writer goes through the system's temporary folder and does not sync: on another file system a kill
    leaves a torn file; and it takes a file without a look at its content.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a checkpoint; a ``last.ckpt`` that is there already gets out of its way.

        Raises:
            UserError: if there is no room or no permission; the one before is intact.
        """
        place = Path(path)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        data = buffer.getvalue()
        sealed = data + SEAL + hashlib.sha256(data).hexdigest().encode()
        if place.name != LAST:
            write_atomically(place, sealed)
            return
        # Also where there is none: one that a kill left under this name must not win over what is written now.
        fresh = place.with_suffix(".new")
        write_atomically(fresh, sealed)
        if place.exists():
            os.replace(place, place.with_name(PREVIOUS))
        os.replace(fresh, place)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads a checkpoint and compares it with its checksum; never unpickles objects.

        Raises:
            DamagedCheckpoint: if it is not what was written.
        """
        data = Path(path).read_bytes()
        content, seal, digest = data.rpartition(SEAL)
        if not seal or hashlib.sha256(content).hexdigest().encode() != digest:
            raise DamagedCheckpoint(f"{path} is not what was written")
        # A machine without a GPU reads what was saved on one, and no rank fills another one's GPU.
        return torch.load(io.BytesIO(content), map_location=map_location or "cpu", weights_only=True)  # noqa: TID251


def newest_checkpoint(last: Path, say: Callable[[str], None]) -> Path | None:
    """Returns the newest whole checkpoint of a run, None where there never was one.

    A damaged one is reported and left as it is; the one before is used.

    Args:
        last: path of ``last.ckpt``.
        say: tells the user.

    Raises:
        UserError: if there are checkpoints and none is whole.
    """
    # A process that died between writing and renaming leaves the newest under its first name.
    candidates = [path for path in (last.with_suffix(".new"), last, last.with_name(PREVIOUS)) if path.exists()]
    for path in candidates:
        try:
            SealedCheckpointIO().load_checkpoint(path)
        except (DamagedCheckpoint, OSError) as error:
            say(f"{path}: cannot be used ({error}); the checkpoint before it is tried")
        else:
            return path
    if candidates:
        remedy = "Restore the folder from a copy, or remove the files to start the running stage's sequence anew"
        raise UserError(str(last.parent), "holds no checkpoint that is whole", remedy)
    return None
