"""Every path of a run folder, in one place."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system answers that knows no locks; a run goes on there unguarded."""


class RunFolder:
    """Everything one sequence leaves behind.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.registry = self.path / "registry"
        self.snapshots = self.path / "snapshots"
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.fused = self.path / "fused"
        self.prior = self.path / "prior"
        self.metrics = self.path / "metrics.csv"
        self.timings = self.path / "timings.json"
        self.samples = self.path / "samples"
        self.generated = self.path / "generated"
        self.evaluation = self.path / "evaluation"
        self.analysis = self.path / "analysis"
        self.report = self.path / "report.html"
        self.log = self.path / "log.txt"
        self.requeues = self.path / "requeues.json"

    def fused_after(self, count: int) -> Path:
        """Returns the file of the weights fused of the first concepts."""
        return self.fused / f"after-{count - 1:03d}.safetensors"

    def snapshot(self, steps: int) -> Path:
        """Returns the registry of the concepts as they stood after some optimizer steps of their own stages."""
        return self.snapshots / f"step-{steps:05d}"

    def snapshot_steps(self) -> list[int]:
        """Returns the numbers of optimizer steps after which snapshots were kept, ascending."""
        found = (path.parent.name.removeprefix("step-") for path in self.snapshots.glob("step-*/registry.json"))
        return sorted(int(steps) for steps in found if steps.isdecimal())

    def stage_checkpoint(self, stage: int) -> Path:
        """Returns the checkpoint that was written right after a stage."""
        return self.checkpoints / f"stage-{stage}.ckpt"

    def sample_sheet(self, stage: int) -> Path:
        """Returns the sheet of pictures that was drawn after a stage."""
        return self.samples / f"stage-{stage}.png"

    @property
    def base_sheet(self) -> Path:
        """The sheet of pictures that the base model drew for prompts that name no concept, a row for each."""
        return self.samples / "base.png"

    def step_sheet(self, stage: int) -> Path:
        """Returns the sheet of pictures that were drawn of a concept while its stage was running."""
        return self.samples / f"stage-{stage}-steps.png"

    def has_begun(self) -> bool:
        """Returns whether a run has trained here: whether there is a learned concept or a checkpoint."""
        return any(self.registry.glob("[0-9]*.safetensors")) or any(self.checkpoints.glob("*.ckpt"))

    def create(self) -> None:
        """Makes the folder and those of what a run writes.

        Raises:
            UserError: if it cannot be made or written to.
        """
        for folder in (self.path, self.registry, self.checkpoints, self.samples):
            make_folder(folder, f"--run {self.path}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps others from writing into the folder; the system lets go of it whatever way this process ends.

        What killed processes left half written is deleted first; a checkpoint of SDXL is worth its room.

        Raises:
            UserError: if another process holds it.
        """
        from cns_lightning.storage import remove_partial_files  # imports torch, and this module is read for --help

        lock, writer = FileLock(self.path / ".lock"), self.path / ".writer"
        try:
            lock.acquire(timeout=0)
            for folder in (self.checkpoints, self.fused, self.samples):  # where no other command writes
                remove_partial_files(folder)
        except Timeout as error:
            named = writer.read_text("utf-8").strip() if writer.exists() else "unknown"
            remedy = "Wait for its end or stop it, or choose another folder"
            raise UserError(f"--run {self.path}", f"another process is writing there ({named})", remedy) from error
        except NotImplementedError:
            pass  # A file system that knows no locks.
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                problem = f"cannot be written to ({error.strerror or error})"
                remedy = "Choose another folder, or change its permissions"
                raise UserError(f"--run {self.path}", problem, remedy) from error
        try:
            writer.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", "utf-8")
            yield
        finally:
            writer.unlink(missing_ok=True)
            lock.release()

    @classmethod
    def existing(cls, path: Path | str) -> RunFolder:
        """Opens a run folder.

        Raises:
            UserError: if there is no run in it.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise UserError(f"--run {path}", "there is no such folder", "Give the --run folder of a fit")
        if not (folder.registry / "registry.json").exists() and not folder.config.exists():
            problem = "is not a run folder: it holds neither config.yaml nor registry/registry.json"
            raise UserError(f"--run {path}", problem, "Give the --run folder of a fit")
        return folder


def make_folder(path: Path, where: str) -> None:
    """Makes a folder, unless it is there, and sees whether it can be written to.

    Args:
        path: path of the folder; missing ones above it are made too.
        where: argument that named it, for the message.

    Raises:
        UserError: if it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        problem = f"cannot be written to ({error.strerror or error})"
        raise UserError(where, problem, "Choose another folder, or change its permissions") from error
