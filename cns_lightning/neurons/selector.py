"""From a base model and prompts to masks: which neurons belong to a concept, which are general. Needs no Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from cns_lightning.diffusion.text import text_states, token_ids
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
from cns_lightning.sequences.sequence import Concept
from cns_lightning.sequences.templates import DEFAULT_TEMPLATES, PromptTemplates, scoring_prompts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.diffusion.text import TextStates

Positions = Literal["all", "without_start", "concept"]

REFERENCE_CLASSES = {
    "animal": ["cat", "dog", "bird"],
    "object": ["car", "cup", "flower"],
    "scene": ["scene"],
    "style": ["style"],
}
STAND_INS = 3
"""Of every kind of concept, to measure the density on."""


@dataclass(frozen=True)
class SelectionRules:
    """How neurons are selected; `callbacks.ImportanceScoring` says what each rule means."""

    share: float = 0.30
    general_rule: Literal["vote", "intersection", "mean"] = "vote"
    vote_threshold: float | Literal["auto"] = "auto"
    reference_classes: Mapping[str, Sequence[str]] = field(default_factory=lambda: REFERENCE_CLASSES)
    positions: Positions = "all"
    normalize_tokens: bool = False
    include_unconditional: bool = False


class NeuronSelector:
    """Selects neurons of one base model.

    Scores use the pretrained weights and text states alone, no pass of the UNet: for a given prompt every key and value
    projection reads the same tensor at every timestep. Source: docs/methods.md 1.3.

    Args:
        base: base model; the concepts' tokens are in its tokenizers.
        weights: pretrained key and value weights by parameter name, float32, on the CPU.
        rules: rules of the selection.
        templates: prompts by kind of concept.
    """

    def __init__(
        self,
        base: BaseModel,
        weights: Mapping[str, Tensor],
        rules: SelectionRules = SelectionRules(),
        templates: PromptTemplates = DEFAULT_TEMPLATES,
    ) -> None:
        self.base, self.weights, self.rules, self.templates = base, dict(weights), rules, templates

    def concept(self, concept: Concept, own: Sequence[int], general: NeuronMask) -> NeuronMask:
        """Returns the concept neurons: active for the concept's prompts, and not general.

        Args:
            concept: the concept.
            own: ids of its token.
            general: general neurons of the same base model.
        """
        active, others = self.active(concept, own), general.bools()
        return NeuronMask.from_bools({name: concept_neurons(mask, others[name]) for name, mask in active.items()})

    def active(self, concept: Concept, own: Sequence[int]) -> dict[str, Tensor]:
        """Returns the base neurons of a concept, bool by parameter name; ``own`` are the ids of its token."""
        return self.base_neurons(scoring_prompts(concept, self.templates), own)

    def base_neurons(self, prompts: list[str], own: Sequence[int] = ()) -> dict[str, Tensor]:
        """Returns the most important neurons for a set of prompts, bool by parameter name.

        Args:
            prompts: the prompts, whose norms are pooled.
            own: ids of the token that they name, if they name one.
        """
        norms, device = self.norms(prompts, own), self.base.device
        return {name: base_neurons(importance_scores(weight.to(device), norms), self.rules.share).to(weight.device)
                for name, weight in self.weights.items()}  # fmt: skip

    def general(self, prompts: Sequence[str], rare_words: Sequence[str]) -> tuple[NeuronMask, dict[str, str]]:
        """Returns the general neurons, and the facts of their selection as text by name.

        Args:
            prompts: calibration prompts, about a hundred of anything.
            rare_words: words in place of the tokens of the stand-ins on which ``auto`` measures the density.
        """
        rules, norms = self.rules, torch.stack([self.norms([prompt]) for prompt in prompts])
        facts = {"rule": rules.general_rule, "prompts": str(len(norms)), "share": str(rules.share)}
        if rules.general_rule == "mean":
            return NeuronMask.from_bools(mean_general_neurons(self.weights, norms, rules.share)), facts
        counts = vote_counts(self.weights, norms, rules.share, self.base.device)
        threshold = 1.0 if rules.general_rule == "intersection" else rules.vote_threshold
        if threshold == "auto":
            tokenizer = self.base.tokenizers[0]
            references = [
                self.active(each, token_ids(tokenizer, each.token))
                for each in stand_ins(rules.reference_classes, rare_words)
            ]
            threshold, density = automatic_threshold(counts, references, len(norms))
            facts["expected_density"] = f"{density:.4f}"
        facts["threshold"] = f"{threshold:.4f}"
        return NeuronMask.from_bools(general_neurons(counts, len(norms), float(threshold))), facts

    def norms(self, prompts: list[str], own: Sequence[int] = ()) -> Tensor:
        """Returns the feature norms of a set of prompts, shape (width,), float32, on the CPU; ``own`` as above."""
        # Zeros, as guided SDXL reads for the empty prompt, add nothing.
        is_mixed = self.rules.include_unconditional and not self.base.zeroes_empty_prompt
        states = text_states(self.base, [*prompts, ""] if is_mixed else prompts)
        counted = counted_positions(states, self.rules.positions, own)
        return text_feature_norms(states.states, counted, self.rules.normalize_tokens).cpu()


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
