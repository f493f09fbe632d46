"""All that can be said of a run before it starts; and the part of it that costs no time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cns_lightning.data.masks import Masks
from cns_lightning.diffusion.sampling import check_steps
from cns_lightning.doctor.base_parts import BaseParts, find_parts
from cns_lightning.doctor.concepts import word_findings
from cns_lightning.doctor.findings import Finding, Severity, merged, refusals, refused
from cns_lightning.doctor.machine import disk_findings, is_for_slurm, memory_findings, slurm_findings
from cns_lightning.doctor.needs import Settings
from cns_lightning.doctor.pictures import content_findings, folder_findings, header_findings
from cns_lightning.errors import UserError
from cns_lightning.evaluation.questions import BASE_PROMPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cns_lightning.data.module import ConceptDataModule
    from cns_lightning.runs.config import RunConfig
    from cns_lightning.runs.folder import RunFolder
    from cns_lightning.sequences import sequence as sequences
    from cns_lightning.sequences.sequence import Concept


@dataclass(frozen=True)
class PlannedRun:
    """What a run is going to be.

    Attributes:
        sequence: what is to be learned, or as much of it as could be read.
        learned: tokens that the run folder has learned; their pictures are needed no more.
        config: configuration of the run.
        folder: run folder, which may be new.
        files: configuration files that were given.
    """

    sequence: sequences.Sequence
    learned: tuple[str, ...]
    config: RunConfig
    folder: RunFolder
    files: tuple[Path, ...] = ()

    @property
    def coming(self) -> list[Concept]:
        """Concepts that are still to be learned."""
        return [concept for concept in self.sequence.concepts if concept.token not in self.learned]

    @property
    def takes_captions(self) -> bool:
        """Whether captions beside pictures are read."""
        return bool(self.config.data.get("captions", True))


def quick_findings(run: PlannedRun) -> list[Finding]:
    """Returns what the headers of pictures, the words and the machine tell; under a second for 140 large photos.

    It leaves out what `fit` says itself right after it: pictures that cannot be used, what folders hold beside them.
    """
    parts = _parts_at_hand(run.config.whole["model"])
    resolution = parts.resolution if parts is not None else None
    found = [*header_findings(run.coming, resolution), *word_findings(run.sequence.concepts)]
    return merged([*found, *_machine_findings(run, parts, is_quick=True)])


def all_findings(
    run: PlannedRun,
    data: ConceptDataModule | None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Finding]:
    """Returns all that can be said of a run before it starts, without the weights of its base model.

    Args:
        run: what is planned.
        data: data module that the run would have, for checks of its own; None where it could not be made.
        progress: called with pictures done and pictures in all.
    """
    found, model = [], run.config.whole["model"]
    try:
        parts = find_parts(model["base_model"], model.get("revision"))
    except UserError as error:
        parts = None
        found += refusals(error)
    resolution = parts.resolution if parts is not None else None
    found += [*header_findings(run.coming, resolution), *folder_findings(run.coming, run.takes_captions)]
    masks = Masks(**run.config.data.get("masks") or {})
    found += [*content_findings(run.coming, progress, masks, run.takes_captions), *word_findings(run.sequence.concepts)]
    if parts is not None:
        found += [*_weight_findings(parts), *_text_findings(run, parts, data)]
    found += _machine_findings(run, parts)
    if is_for_slurm(run.files):
        found += slurm_findings()
    return merged(found)


def _parts_at_hand(model: dict[str, Any]) -> BaseParts | None:
    try:
        return find_parts(model["base_model"], model.get("revision"), may_fetch=False)
    except UserError:  # `fit` says it when it opens the base model
        return None


def _machine_findings(run: PlannedRun, parts: BaseParts | None, is_quick: bool = False) -> list[Finding]:
    try:
        settings = Settings.of(run.config, len(run.coming))
    except UserError as error:
        return refusals(error)
    found, trainer = disk_findings(parts, settings, run.folder.path), run.config.whole["trainer"]
    if parts is None:
        return found
    devices = trainer.get("devices")
    count = devices if isinstance(devices, int) else len(devices) if isinstance(devices, list) else 1
    return [*found, *memory_findings(parts, settings, str(trainer.get("accelerator")), count, is_quick)]


def _weight_findings(parts: BaseParts) -> list[Finding]:
    where = f"base model {parts.source}"
    if parts.is_remote and "unet" not in parts.numbers:
        problem, remedy = "its weights are not in the download cache", "fit fetches them from the hub first: gigabytes"
        return [Finding(Severity.NOTE, problem, where, remedy)]
    if parts.folder is None:
        problem = "a single file without the small files of its diffusers folder beside it"
        remedy = "fit fetches them from the hub; tokens, prompts, picture sizes and memory were not looked at"
        return [Finding(Severity.NOTE, problem, where, remedy)]
    if parts.resolution is None:
        remedy = 'Write "sample_size": 64 into it for pictures of 512 pixels, 96 for 768, 128 for 1024'
        return [Finding(Severity.STOPS, "has no sample_size", f"{where}: unet/config.json", remedy)]
    return []


def _text_findings(run: PlannedRun, parts: BaseParts, data: ConceptDataModule | None) -> list[Finding]:
    # Here, so that quick findings do not wait for transformers' tokenizers.
    from cns_lightning.doctor.texts import TextSide, prompt_findings, token_findings

    if parts.folder is None or not parts.encoders:
        return []
    try:
        side = TextSide(parts)
    except UserError as error:
        return refusals(error)
    base, samples = side.as_base, run.config.samples
    found = []
    if data is not None:
        # Before the tokens are added: what a run asks of its base model, asked the same way.
        found += refused(lambda: data.check_against(base, len(run.learned)))
    found += refused(lambda: check_steps(base.noise_scheduler, int(samples.get("steps", 1)), "samples.steps"))
    found += token_findings(base, [concept.token for concept in run.sequence.concepts])
    untouched: Sequence[str] = samples.get("base_prompts") or BASE_PROMPTS
    where = str(run.sequence.path or "sequence")
    told = (run.sequence.prompts, run.config.templates, untouched, where, run.takes_captions)
    return found + prompt_findings(base, run.coming, *told)
