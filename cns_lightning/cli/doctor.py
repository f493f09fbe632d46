"""``doctor``: what would stop or spoil a fit, all of it at once, before anything slow starts."""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from cns_lightning.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from cns_lightning.user_files import command_line, expanded

if TYPE_CHECKING:
    from pathlib import Path

    from cns_lightning.data.module import ConceptDataModule
    from cns_lightning.doctor.examination import PlannedRun
    from cns_lightning.doctor.findings import Finding
    from cns_lightning.sequences.sequence import Sequence

UNNAMED = "runs/unnamed"
"""Run folder that is looked at where none is given; nothing is written there."""
WITHOUT_RUN = ("required: run", "Option 'run' is required")
"""What jsonargparse says where --run is missing; its earlier versions the second."""
FOLLOWING = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What libraries raise for settings that `fit` would have refused before."""
LINE = 120
"""Width of the table in characters, without a terminal."""

_EXPLANATION = """\
It takes the arguments of fit (fit --help) and starts nothing:

  python -m cns_lightning doctor --config configs/base/sd15.yaml --config configs/methods/cns.yaml \\
      --config configs/hardware/one_gpu.yaml --data.sequence family.yaml --run runs/family

Pictures are read whole, the base model's weights are not loaded. Exit code 2 if fit would refuse something, else 0.
"""


def parser() -> argparse.ArgumentParser:
    """Makes the parser of the command's help; every argument is one of ``fit``."""
    return argparse.ArgumentParser(
        prog="python -m cns_lightning doctor",
        usage="%(prog)s --config FILE [--config FILE ...] [--run DIR] [--KEY VALUE ...]",
        description="Says what would stop or spoil a fit: pictures, tokens, prompts, disk, memory, SLURM.",
        epilog=_EXPLANATION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run(argv: list[str]) -> int:
    """Runs the command and returns the exit code: 2 if `fit` would refuse something.

    Raises:
        UserError: if the configuration cannot be read so far that anything else could be looked at.
    """
    _, words = parser().parse_known_args(argv)
    # Here, so that --help does not wait for torch.
    from cns_lightning.doctor.examination import all_findings
    from cns_lightning.doctor.findings import merged, stops
    from cns_lightning.progress import ProgressDisplay

    plan, data, refused = planned(words)
    display = ProgressDisplay()

    def progress(done: int, of: int) -> None:
        if display.live:  # elsewhere the table alone is of use
            display.status(f"picture {done + 1} of {of}" if done < of else "")
            sys.stderr.write("\r" if done == of else "")

    found = all_findings(plan, data, progress)
    findings = merged([*refused, *found])
    if plan.folder.path == expanded(UNNAMED).absolute():
        words = [*words, "--run", f"runs/{plan.sequence.name}"]
    sys.stdout.write(_told(findings, words) + "\n")
    return EXIT_USER_ERROR if stops(findings) else EXIT_DONE


def planned(words: list[str]) -> tuple[PlannedRun, ConceptDataModule | None, list[Finding]]:
    """Returns the run that ``fit`` would make, its data module if one can be made, and what ``fit`` would refuse.

    Raises:
        UserError: if the configuration cannot be parsed.
    """
    import yaml

    from cns_lightning.configuration.errors import config_files
    from cns_lightning.doctor.concepts import readable_sequence
    from cns_lightning.doctor.examination import PlannedRun
    from cns_lightning.doctor.findings import refusals
    from cns_lightning.runs.config import RunConfig
    from cns_lightning.runs.folder import RunFolder
    from cns_lightning.sequences.sequence import Sequence, sequence_path

    made, found = _parsed(words)
    folder, learned = RunFolder(expanded(made.config.run or UNNAMED).absolute()), getattr(made, "learned", ())
    path = sequence_path(made.config.data.sequence)
    try:
        sequence = Sequence.read(path, learned)
    except UserError as error:
        told = refusals(error)
        found += [] if told[0] in found else told
        sequence = readable_sequence(path)
    whole = yaml.safe_load(made.parser.dump(made.settings, skip_check=True, skip_none=False))
    config = RunConfig(folder.config, {}, sequence.plain(), whole)
    data = getattr(made, "datamodule", None)
    if data is not None:
        data.learned = learned
    return PlannedRun(sequence, tuple(learned), config, folder, tuple(config_files(words))), data, found


def _parsed(words: list[str]) -> tuple[Any, list[Finding]]:
    """Makes everything that ``fit`` makes, as far as it can be made, and lists what it refuses.

    Raises:
        UserError: if the configuration cannot be parsed.
    """
    from cns_lightning.configuration.errors import (
        ConfigurationMistake,
        check_config_files,
        explained,
        lightning_explained,
    )
    from cns_lightning.configuration.parser import quieten
    from cns_lightning.slurm.job import leave_out_tasks

    quieten()
    leave_out_tasks()
    check_config_files(words)
    for more in ([], ["--run", UNNAMED]):
        try:
            with lightning_explained():
                return _made([*words, *more])
        except ConfigurationMistake as mistake:
            if more or not any(said in str(mistake) for said in WITHOUT_RUN):
                raise explained(mistake, words) from mistake
    raise AssertionError


def _made(words: list[str]) -> tuple[Any, list[Finding]]:
    from copy import deepcopy

    from cns_lightning.configuration.continuation import check_unchanged
    from cns_lightning.configuration.errors import config_files, lightning_explained
    from cns_lightning.configuration.parser import ContinualCLI
    from cns_lightning.doctor.concepts import readable_sequence
    from cns_lightning.doctor.findings import refused, warned
    from cns_lightning.doctor.machine import gpu_memory, is_for_slurm, slurm_findings
    from cns_lightning.slurm.job import job_id

    found: list[Finding] = []

    class Collecting(ContinualCLI):  # here, so that --help does not wait for torch
        """Goes on after a refusal, as far as that makes sense."""

        is_whole = True

        def _set_seed(self) -> None:
            found.extend(refused(super()._set_seed))

        def before_instantiate_classes(self) -> None:
            found.extend(refused(super().before_instantiate_classes))
            self.settings = deepcopy(self.config)

        def check(self, act: Any, *arguments: Any) -> None:
            # That concepts are gone may only follow from a sequence of which a part could be read.
            if self.is_whole or act is not check_unchanged:
                found.extend(refused(lambda: act(*arguments)))

        def read_sequence(self, path: Path) -> Sequence:
            told = refused(lambda: super(Collecting, self).read_sequence(path))
            found.extend(told)
            self.is_whole = not told
            return readable_sequence(path) if told else super().read_sequence(path)

        def instantiate_classes(self) -> None:
            is_elsewhere = is_for_slurm(config_files(words)) and job_id() is None and not warned(slurm_findings())
            if is_elsewhere and gpu_memory(is_free=False) is None:
                # The machine of the job has GPUs, this one need not.
                trainer = self.config.trainer
                trainer.accelerator, trainer.devices, trainer.num_nodes, trainer.strategy = "cpu", 1, 1, "auto"
            # After a refusal settings are half filled in; what else is wrong may only follow from that.
            with suppress(*FOLLOWING) if found else nullcontext():
                found.extend(refused(self.make))

        def make(self) -> None:
            with lightning_explained():
                super().instantiate_classes()

    return Collecting(words), found


def _told(findings: list[Finding], words: list[str]) -> str:
    from cns_lightning.doctor.findings import Severity, stops, table

    width = shutil.get_terminal_size((LINE, 1)).columns if sys.stdout.isatty() else LINE
    count = sum(finding.severity is Severity.WARNING for finding in findings)
    warnings = f"{count} {'thing is' if count == 1 else 'things are'} worth a look" if count else "nothing to look at"
    if stops(findings):
        last = f"fit would refuse this; {warnings} besides. Mend what stops it, and run the same command again."
    else:
        last = f"Nothing stops a fit; {warnings}. Next:\n  {command_line(['fit', *words])}"
    shown = table(findings, width)
    return f"{shown}\n\n{last}" if shown else last
