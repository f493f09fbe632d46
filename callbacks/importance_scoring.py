"""When a stage starts: which neurons belong to its concept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Literal

import torch
from lightning.pytorch import Callback
from torch.utils.data import default_collate

from cns_lightning.data.module import StageDataset
from cns_lightning.diffusion.denoising import denoising_loss
from cns_lightning.diffusion.text import text_states
from cns_lightning.errors import UserError
from cns_lightning.module import continual
from cns_lightning.neurons.controls import all_neurons, largest_neurons, random_neurons
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.selector import REFERENCE_CLASSES, NeuronSelector, Positions, SelectionRules
from cns_lightning.progress import ProgressDisplay
from cns_lightning.ranges import Count, Share
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.calibration import read_calibration_prompts
from cns_lightning.sequences.sequence import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor

    from cns_lightning.module import ContinualPersonalization
    from cns_lightning.registry.record import ConceptRecord

Neurons = Literal["concept", "random", "active", "all", "magnitude", "gradient", "current_weights"]

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
        neurons: which neurons a stage trains: those of its ``concept``; or, as a control of it, ``random`` ones,
            as many in every row; ``active``, all that matter for the concept, the general ones among them; ``all`` key
            and value weights; those of the largest ``magnitude`` or ``gradient``, as many in every matrix; those that
            would be the concept's if the ``current_weights`` were scored, which earlier stages have moved.
        gradient_steps: training steps over which ``gradient`` sums the magnitude of the loss's gradient.

    Source: paper Eq. 3, supplement 9.5 (random neurons); SHiRA (arXiv 2406.13175) 3.1 for magnitude and gradient.
    """

    def __init__(  # noqa: PLR0913 - they are YAML keys
        self,
        calibration: str = "stable_diffusion",
        share: Share = 0.30,
        general_rule: Literal["vote", "intersection", "mean"] = "vote",
        vote_threshold: Share | Literal["auto"] = "auto",
        reference_classes: dict[str, list[str]] | None = None,
        positions: Positions = "all",
        normalize_tokens: bool = False,
        include_unconditional: bool = False,
        neurons: Neurons = "concept",
        gradient_steps: Count = 16,
    ) -> None:
        self.calibration, self.share, self.general_rule, self.vote_threshold = (
            calibration, share, general_rule, vote_threshold,
        )  # fmt: skip
        self.reference_classes, self.positions = reference_classes, positions
        self.normalize_tokens, self.include_unconditional = normalize_tokens, include_unconditional
        self.neurons: Neurons = neurons
        self.gradient_steps = gradient_steps
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

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sees whether a stage that is continued was begun with the same prompts and rules.

        Raises:
            UserError: if it was not: L_reg would tie it to others.
        """
        module = continual(pl_module)
        is_running, begun_with = module.stage >= module.done_stages, module.registry.general_fingerprint()
        if is_running and begun_with not in (None, self._fingerprint(module)):
            token = module.sequence.concepts[module.stage].token
            remedy = "Put them back as they were, or go back with `concepts --rollback` and learn the concept anew"
            problem = f"{self.calibration} holds other prompts than when the stage of {token} began"
            raise UserError("ImportanceScoring.calibration", problem, remedy)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Selects the neurons of the stage that is about to start."""
        module = continual(pl_module)
        token = module.sequence.concepts[trainer.current_epoch].token
        key, registry = self._fingerprint(module), module.registry
        if registry.general_fingerprint() == key:
            general = registry.general_mask()
        else:
            selector = self.selector(module, module.base_weights)
            general, facts = selector.general(module.calibration_prompts, registry.rare_words)
            registry.set_general(general, key, facts, write=trainer.is_global_zero)
        mask = module.concept_neurons[token] = self.neurons_of(trainer.current_epoch, module, general)
        if not mask.count():
            remedy = f"Raise share ({self.rules.share:g}) or vote_threshold"
            raise UserError("ImportanceScoring", f"selects no neuron for {token}", remedy)
        if trainer.is_global_zero:
            for sentence in strong_overlaps(token, mask, registry.records[: trainer.current_epoch]):
                ProgressDisplay(RunFolder(trainer.default_root_dir).log).event(sentence)

    def selector(self, module: ContinualPersonalization, weights: Mapping[str, Tensor]) -> NeuronSelector:
        """Returns what selects neurons of given key and value weights by the rules."""
        return NeuronSelector(module.base, weights, self.rules, module.data.templates)

    def neurons_of(self, stage: int, module: ContinualPersonalization, general: NeuronMask) -> NeuronMask:
        """Returns the neurons that a stage trains.

        Args:
            stage: number of the stage, from 0; it has not started.
            module: module of the run.
            general: general neurons.
        """
        concept = module.sequence.concepts[stage]
        own = module.tokens.identifiers(concept.token)
        if self.neurons == "current_weights":
            return self.selector(module, module.weights).concept(concept, own, general)
        selector = self.selector(module, module.base_weights)
        if self.neurons == "active":
            return NeuronMask.from_bools(selector.active(concept, own))
        mask = selector.concept(concept, own, general)
        if self.neurons == "random":
            return random_neurons(mask, module.seed, stage)
        if self.neurons == "all":
            return all_neurons(mask)
        if self.neurons == "magnitude":
            return largest_neurons(mask, {name: weight.abs() for name, weight in module.base_weights.items()})
        if self.neurons == "gradient":
            return largest_neurons(mask, gradient_magnitudes(stage, module, self.gradient_steps))
        return mask

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


def gradient_magnitudes(stage: int, module: ContinualPersonalization, steps: int) -> dict[str, Tensor]:
    """Sums the magnitude of the denoising loss's gradient over the first steps of a stage that has not started.

    Args:
        stage: number of the stage, from 0.
        module: module of the run; it is left as it was.
        steps: number of steps, with the pictures, noise and timesteps of training.

    Returns:
        By parameter name, of the weights' shapes, float32, on the device of the model.
    """
    module.data.prepare(stage)
    dataset, device = StageDataset(module.data), module.device
    weights = {name: weight.to(device, copy=True).requires_grad_() for name, weight in module.weights.items()}
    totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    module.overrides.set(weights)
    try:
        whole, part = module.data.samples_per_step, module.data.batch_size
        for step in range(steps):
            summed = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            for first in range(0, whole, part):  # as many pictures at once as in training
                numbers = range(first, min(whole, first + part))
                batch = default_collate([dataset[stage, step, number] for number in numbers])
                given = {name: each.to(device) for name, each in batch.items() if isinstance(each, torch.Tensor)}
                losses = denoising_loss(
                    module.base,
                    given["latents"],
                    given["noise"],
                    given["timestep"],
                    text_states(module.base, list(batch["prompt"])),
                    given["valid_region"],
                    given.get("weights"),
                )
                gradients = torch.autograd.grad(losses.sum() / whole, list(weights.values()))
                for total, gradient in zip(summed.values(), gradients, strict=True):
                    total += gradient
            for name, gradient in summed.items():
                totals[name] += gradient.abs()
    finally:
        module.overrides.clear()
    return totals
