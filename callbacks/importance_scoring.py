"""When a stage starts: which neurons belong to its concept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from lightning.pytorch import Callback
from torch import Tensor

from cns_lightning.diffusion.text import text_states, token_ids
from cns_lightning.errors import UserError
from cns_lightning.neurons.importance import importance_scores, text_feature_norms
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.selection import (
    automatic_threshold,
    base_neurons,
    concept_neurons,
    general_neurons,
    mean_general_neurons,
    vote_counts,
)
from cns_lightning.ranges import Share
from cns_lightning.sequences.calibration import read_calibration_prompts
from cns_lightning.sequences.sequence import KINDS, Concept
from cns_lightning.sequences.templates import scoring_prompts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lightning.pytorch import LightningModule, Trainer

    from cns_lightning.diffusion.text import TextStates
    from cns_lightning.module import ContinualPersonalization

Positions = Literal["all", "without_start", "concept"]

REFERENCE_CLASSES = {
    "animal": ["cat", "dog", "bird"],
    "object": ["car", "cup", "flower"],
    "scene": ["scene"],
    "style": ["style"],
}
STAND_INS = 3
"""Of every kind of concept, to measure the density on."""


class ImportanceScoring(Callback):
    """Selects the concept neurons of every stage and hands their mask to the module.

    Acts in ``on_train_epoch_start``, before the module starts the stage. A continued stage keeps the mask of its
    checkpoint. Every rank computes the same masks; rank 0 writes ``registry/general.safetensors``, which later stages
    and later runs of the folder reuse while model, prompts and settings are the same.

    Scores use the pretrained weights and text states alone, no pass of the UNet: for a given prompt every key and value
    projection reads the same tensor at every timestep (docs/methods.md 1.3).

    Args:
        calibration: file of descriptions of anything, one a line; a bare name stands for a file that ships.
        share: of each row's entries that count as active.
        general_rule: ``vote`` (active for at least a share of the descriptions), ``intersection`` (for all) or ``mean``
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
        self.calibration, self.share = calibration, share
        self.general_rule, self.vote_threshold = general_rule, vote_threshold
        self.reference_classes = reference_classes or REFERENCE_CLASSES
        self.positions: Positions = positions
        self.normalize_tokens = normalize_tokens
        self.include_unconditional = include_unconditional

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reads the calibration prompts and checks the settings before anything slow starts.

        Raises:
            UserError: if there are no prompts, or a kind of the reference classes is unknown or has no class.
        """
        for kind, words in self.reference_classes.items():
            if kind not in KINDS or not words:
                problem = f"has no class word for {kind}" if kind in KINDS else f"has the unknown kind {kind}"
                remedy = f"Write class words by kind, for example animal: [cat, dog]; kinds are {', '.join(KINDS)}"
                raise UserError("ImportanceScoring.reference_classes", problem, remedy)
        module: ContinualPersonalization = pl_module  # type: ignore[assignment]
        module.calibration_prompts = read_calibration_prompts(self.calibration)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Selects the neurons of the stage that is about to start."""
        module: ContinualPersonalization = pl_module  # type: ignore[assignment]
        concept = module.sequence.concepts[trainer.current_epoch]
        own = module.tokens.identifiers(concept.token)
        norms = self._norms(module, scoring_prompts(concept, module.data.templates), own)
        active = self._base_neurons(module.base_weights, norms)
        general = self._general_neurons(module).bools()
        selected = {name: concept_neurons(mask, general[name]) for name, mask in active.items()}
        module.concept_neurons[concept.token] = NeuronMask.from_bools(selected)

    def _base_neurons(self, weights: dict[str, Tensor], norms: Tensor) -> dict[str, Tensor]:
        return {name: base_neurons(importance_scores(weight, norms), self.share) for name, weight in weights.items()}

    def _norms(self, module: ContinualPersonalization, prompts: list[str], own: Sequence[int] = ()) -> Tensor:
        """Returns the feature norms of a set of prompts, shape (width,), float32, on the CPU."""
        assert module.base is not None
        # Zeros, as guided SDXL reads for the empty prompt, add nothing.
        is_mixed = self.include_unconditional and not module.base.zeroes_empty_prompt
        states = text_states(module.base, [*prompts, ""] if is_mixed else prompts)
        counted = counted_positions(states, self.positions, own)
        return text_feature_norms(states.states, counted, self.normalize_tokens).cpu()

    def _general_neurons(self, module: ContinualPersonalization) -> NeuronMask:
        key = self._fingerprint(module)
        known = module.registry.general_fingerprint()
        if known == key:
            return module.registry.general_mask()
        prompt_norms = torch.stack([self._norms(module, [prompt]) for prompt in module.calibration_prompts])
        mask, facts = self._select_general(module, prompt_norms)
        module.registry.set_general(mask, key, facts, write=module.trainer.is_global_zero)
        return mask

    def _select_general(
        self, module: ContinualPersonalization, prompt_norms: Tensor
    ) -> tuple[NeuronMask, dict[str, str]]:
        facts = {"rule": self.general_rule, "prompts": str(len(prompt_norms)), "share": str(self.share)}
        if self.general_rule == "mean":
            return NeuronMask.from_bools(mean_general_neurons(module.base_weights, prompt_norms, self.share)), facts
        counts = vote_counts(module.base_weights, prompt_norms, self.share)
        threshold = 1.0 if self.general_rule == "intersection" else self.vote_threshold
        if threshold == "auto":
            references = self._references(module)
            threshold, density = automatic_threshold(counts, references, len(prompt_norms))
            facts["expected_density"] = f"{density:.4f}"
        facts["threshold"] = f"{threshold:.4f}"
        return NeuronMask.from_bools(general_neurons(counts, len(prompt_norms), float(threshold))), facts

    def _references(self, module: ContinualPersonalization) -> list[dict[str, Tensor]]:
        """Returns the base neurons of the stand-ins, scored as concepts are."""
        assert module.base is not None
        found = []
        for each in stand_ins(self.reference_classes, module.registry.rare_words):
            own = token_ids(module.base.tokenizers[0], each.token)
            norms = self._norms(module, scoring_prompts(each, module.data.templates), own)
            found.append(self._base_neurons(module.base_weights, norms))
        return found

    def _fingerprint(self, module: ContinualPersonalization) -> str:
        # Not all of vars(self): Lightning puts things of its own there, which change from stage to stage.
        settings = {name: str(getattr(self, name)) for name in sorted(signature(type(self)).parameters)}
        words, templates = module.registry.rare_words, asdict(module.data.templates)
        facts = [module.registry.base_fingerprint, list(module.calibration_prompts), settings, words, templates]
        text = json.dumps(facts)
        return hashlib.sha256(text.encode()).hexdigest()


def stand_ins(classes: Mapping[str, Sequence[str]], rare_words: Sequence[str]) -> list[Concept]:
    """Returns made-up concepts to measure the density of concept neurons on, as many of every kind.

    Args:
        classes: class words by kind.
        rare_words: words in place of tokens; without any the class word stands in for the token, too.
    """
    found = []
    for kind, words in classes.items():
        for number in range(STAND_INS):
            word = words[number % len(words)]
            token = rare_words[number % len(rare_words)] if rare_words else word
            found.append(Concept(token, word, kind, Path()))
    return found


def counted_positions(encoded: TextStates, positions: Positions, own: Sequence[int]) -> Tensor:
    """Marks the tokens whose states count, shape (prompts, tokens), bool.

    Args:
        encoded: the prompts.
        positions: which positions count.
        own: ids of the concept's token; with ``concept`` a prompt without it counts from its first word.
    """
    counted = torch.ones_like(encoded.positions)
    if positions != "all":
        counted[:, 0] = False
    if positions == "concept":
        is_own = torch.isin(encoded.token_ids, torch.tensor(list(own), device=encoded.token_ids.device))
        has_own = is_own.any(1, keepdim=True)
        counted &= ((is_own.cumsum(1) > 0) | ~has_own) & encoded.positions
    return counted
