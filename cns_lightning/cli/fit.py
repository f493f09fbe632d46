"""``fit``: LightningCLI over stacked YAML files, one run folder, exact continuation."""

from __future__ import annotations

import signal

from cns_lightning.cli.collection import collection_held_back
from cns_lightning.configuration.errors import ConfigurationMistake, check_config_files, explained, lightning_explained
from cns_lightning.configuration.parser import ContinualCLI, quieten
from cns_lightning.diffusion.loading import stock_pipelines
from cns_lightning.errors import EXIT_DONE
from cns_lightning.slurm.job import leave_out_tasks


def run(arguments: list[str]) -> int:
    """Learns a sequence, or continues it; returns the exit code."""
    quieten()
    leave_out_tasks()
    arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
    check_config_files(arguments)
    try:
        with lightning_explained(), collection_held_back():
            cli = ContinualCLI(arguments)
            stock_pipelines()  # the base model is opened later, but this is when it takes least to import what it needs
    except ConfigurationMistake as mistake:
        raise explained(mistake, arguments) from mistake
    cli.trainer.run = cli.checked_run()
    try:
        cli.trainer.fit(cli.model, cli.datamodule)
    except SystemExit as left:
        # Lightning turns a second Ctrl-C into a plain 1.
        raise (SystemExit(128 + signal.SIGINT) if isinstance(left.__context__, KeyboardInterrupt) else left) from left
    return EXIT_DONE
