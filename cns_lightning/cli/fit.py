"""``fit``: LightningCLI over stacked YAML files, one run folder, exact continuation."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import yaml
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from cns_lightning.callbacks.stop_signals import handlers_kept
from cns_lightning.configuration.continuation import comparable
from cns_lightning.configuration.errors import ConfigurationMistake, check_config_files, explained, lightning_explained
from cns_lightning.configuration.parser import ContinualCLI, quieten
from cns_lightning.errors import EXIT_DONE, UserError
from cns_lightning.runs.checkpoint_file import SealedCheckpointIO, newest_checkpoint
from cns_lightning.runs.config import RunConfig
from cns_lightning.slurm.job import leave_out_tasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cns_lightning.runs.folder import RunFolder


def write_config(folder: RunFolder, cli: ContinualCLI) -> None:
    """Writes ``config.yaml``: the sequence, the settings that a continued run must share, the whole configuration."""
    whole = yaml.safe_load(cli.parser.dump(cli.config, skip_check=True, skip_none=False))
    RunConfig(folder.config, comparable(cli.config), cli.sequence.plain(), whole).write()


def run(arguments: list[str]) -> int:
    """Learns a sequence, or continues it; returns the exit code."""
    quieten()
    leave_out_tasks()
    arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
    check_config_files(arguments)
    try:
        with lightning_explained():
            cli = ContinualCLI(arguments)
    except ConfigurationMistake as mistake:
        raise explained(mistake, arguments) from mistake
    cli.datamodule.learned = cli.learned
    checkpoint = newest_checkpoint(cli.folder.last_checkpoint, say)
    if checkpoint is not None and finished_stages(checkpoint) >= len(cli.sequence.concepts):
        # Prompts and what else touches nothing that is learned may have changed: `test` reads them from there.
        with writing(cli):
            say(f"{cli.folder.path}: the run is finished, all {len(cli.sequence.concepts)} concepts are learned")
        return EXIT_DONE
    for sentence in cli.datamodule.check_pictures():
        say(sentence)
    try:
        with writing(cli), handlers_kept(), lightning_explained():
            cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=str(checkpoint) if checkpoint else None)
    except SystemExit as left:
        # Lightning turns a second Ctrl-C into a plain 1.
        raise (SystemExit(128 + signal.SIGINT) if isinstance(left.__context__, KeyboardInterrupt) else left) from left
    learned, asked = cli.model.done_stages, len(cli.sequence.concepts)
    if learned < asked:
        remedy = "Take out what stops a training early, and run the same command again"
        raise UserError("trainer", f"something ended the run after {learned} of {asked} concepts", remedy)
    return EXIT_DONE


@contextmanager
def writing(cli: ContinualCLI) -> Iterator[None]:
    """Keeps the run folder for this run while it lasts, and starts with its configuration; rank 0 alone writes.

    Raises:
        UserError: if the folder cannot be written to, or another process does.
    """
    if rank_zero_only.rank != 0:
        yield
        return
    cli.folder.create()
    with cli.folder.held():
        write_config(cli.folder, cli)
        yield


def finished_stages(checkpoint: Path) -> int:
    """Reads from a checkpoint how many stages are finished."""
    return SealedCheckpointIO().load_checkpoint(checkpoint)["continual"]["done_stages"]


def say(text: str) -> None:
    """Says something where progress is shown, once for all processes."""
    if rank_zero_only.rank == 0:
        sys.stderr.write(f"{text}\n")
