"""When a stage starts: which neurons belong to its concept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Literal

from lightning.pytorch import Callback

from cns_lightning.errors import UserError
from cns_lightning.module import continual
from cns_lightning.neurons.selector import REFERENCE_CLASSES, NeuronSelector, Positions, SelectionRules
from cns_lightning.progress import ProgressDisplay
from cns_lightning.ranges import Share
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.calibration import read_calibration_prompts
from cns_lightning.sequences.sequence import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightning.pytorch import LightningModule, Trainer

    from cns_lightning.module import ContinualPersonalization
    from cns_lightning.neurons.mask import NeuronMask
    from cns_lightning.registry.record import ConceptRecord

STRONG = 0.5
"""Overlap (IoU) of two concepts from which on a run says so; the paper's mean is 0.24 (supplement 9.3)."""


class ImportanceScoring(Callback):
    """Selects the concept neurons of every stage and hands their mask to the module (`concept_neurons`).

    Acts in ``on_train_epoch_start``, before `MaskFreezing` arms the stage with the mask and the module starts it. A
    continued stage keeps the mask of its checkpoint. Every rank computes the same masks; rank 0 writes
    ``registry/general.safetensors``, which later stages and later runs of the folder reuse while model, prompts and
    settings are the same.

    Scores use the pretrained weights and text states alone, no pass of the UNet: for a given prompt every key and value
    projection reads the same tensor at every timestep (docs/methods.md 1.3).

    Args:
        calibration: file of calibration prompts, about anything, one a line; a bare name stands for a file that ships.
        share: share of each row's entries that count as active.
        general_rule: ``vote`` (active for at least a share of the prompts), ``intersection`` (for all) or ``mean``
            (by the pooled score).
        vote_threshold: the share of ``vote``; ``auto`` aims at the published density of about 5 %.
        reference_classes: by kind of concept, class words of the stand-ins on which ``auto`` measures the density, as
            many for every kind. Not the sequence's own concepts: the general neurons must not change when concepts are
            appended.
        positions: tokens that count: all the layers see, all but the start, or from the concept's token to the end.
        normalize_tokens: give every token state unit length first.
        include_unconditional: mix in the empty prompt, as scoring during guided sampling would.
    """

    def __init__(
        self,
        calibration: str = "stable_diffusion",
        share: Share = 0.30,
        general_rule: Literal["vote", "intersection", "mean"] = "vote",
        vote_threshold: Share | Literal["auto"] = "auto",
        reference_classes: dict[str, list[str]] | None = None,
        positions: Positions = "all",
        normalize_tokens: bool = False,
        include_unconditional: bool = False,
    ) -> None:
        self.calibration, self.share, self.general_rule, self.vote_threshold = (
            calibration, share, general_rule, vote_threshold,
        )  # fmt: skip
        self.reference_classes, self.positions = reference_classes, positions
        self.normalize_tokens, self.include_unconditional = normalize_tokens, include_unconditional
        self.rules = SelectionRules(
            share,
            general_rule,
            vote_threshold,
            reference_classes or REFERENCE_CLASSES,
            positions,
            normalize_tokens,
            include_unconditional,
        )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reads the calibration prompts and checks the settings before anything slow starts.

        Raises:
            UserError: if there are no prompts, or a kind of the reference classes is unknown or has no class.
        """
        for kind, words in self.rules.reference_classes.items():
            if kind not in KINDS or not words:
                problem = f"has no class word for {kind}" if kind in KINDS else f"has the unknown kind {kind}"
                remedy = f"Write class words by kind, for example animal: [cat, dog]; kinds are {', '.join(KINDS)}"
                raise UserError("ImportanceScoring.reference_classes", problem, remedy)
        module = continual(pl_module)
        module.calibration_prompts = read_calibration_prompts(self.calibration)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Selects the neurons of the stage that is about to start."""
        module = continual(pl_module)
        concept = module.sequence.concepts[trainer.current_epoch]
        selector = NeuronSelector(module.base, module.base_weights, self.rules, module.data.templates)
        key, registry = self._fingerprint(module), module.registry
        if registry.general_fingerprint() == key:
            general = registry.general_mask()
        else:
            general, facts = selector.general(module.calibration_prompts, registry.rare_words)
            registry.set_general(general, key, facts, write=trainer.is_global_zero)
        own = module.tokens.identifiers(concept.token)
        mask = module.concept_neurons[concept.token] = selector.concept(concept, own, general)
        if trainer.is_global_zero:
            for sentence in strong_overlaps(concept.token, mask, registry.records[: trainer.current_epoch]):
                ProgressDisplay(RunFolder(trainer.default_root_dir).log).event(sentence)

    def _fingerprint(self, module: ContinualPersonalization) -> str:
        rules = {each.name: str(getattr(self.rules, each.name)) for each in fields(self.rules)}
        settings = dict(sorted({**rules, "calibration": self.calibration}.items()))
        words, templates = module.registry.rare_words, asdict(module.data.templates)
        facts = [module.registry.base_fingerprint, list(module.calibration_prompts), settings, words, templates]
        text = json.dumps(facts)
        return hashlib.sha256(text.encode()).hexdigest()


def strong_overlaps(token: str, mask: NeuronMask, earlier: Iterable[ConceptRecord]) -> list[str]:
    """Returns a sentence for every earlier concept whose neurons are much the same as those of a new one.

    Args:
        token: token of the new concept.
        mask: its neurons.
        earlier: the concepts learned before.
    """
    found = []
    for record in earlier:
        overlap = mask.iou(record.mask) if record.mask is not None else 0.0
        if overlap >= STRONG:
            found.append(
                f"{token} has much the same neurons as {record.token} (IoU {overlap:.2f}): learning it moves what "
                f"{record.token} is made of; other rare words (model.rare_words) or class words tell them apart"
            )
    return found
