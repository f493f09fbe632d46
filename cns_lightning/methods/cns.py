"""Concept Neuron Selection: train the few key and value weights that matter for a concept, and its token.

Source: CNS (arXiv 2510.02296) and its supplement, sections 8.3 and 9; where they are silent, docs/methods.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from cns_lightning.diffusion.text import TextStates, text_states
from cns_lightning.errors import UserError
from cns_lightning.methods.base import Method, ParameterGroup, StageContext
from cns_lightning.methods.deltas import SparseDelta, gather_masked
from cns_lightning.methods.quadratic_form import QuadraticForm
from cns_lightning.ranges import Amount, Count, NonNegative, Positive, Probability
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.sequences.sequence import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cns_lightning.registry.files import ConceptEntry


Regularization = Literal["split", "plain", "continual_lora", "function_space", "none"]
TokenStart = Literal["rare_word", "class_word"]


def anchor_strengths(overlapping: Tensor, prior: float, pretrained: float) -> Tensor:
    """Returns the strength of every entry's one anchor: the prior concepts' where they moved it, else the base's.

    Args:
        overlapping: shape (entries,), bool: the entry was trained by an earlier concept.
        prior: strength of the tie to the weights after the previous stage.
        pretrained: strength of the tie to the pretrained weights.

    Returns:
        Shape (entries,), float32.

    Source: docs/methods.md 1.8, R1' (our reading of L_reg).
    """
    return torch.where(overlapping, prior, pretrained).float()


def two_anchor_regularization(values: Tensor, strengths: Tensor) -> Tensor:
    """Sums the squared displacement of every entry from its anchor, weighted.

    On fresh entries the pretrained weight and the weight after the previous stage coincide, so the displacement is the
    trained value itself on both kinds of entry.

    Args:
        values: displacement from the weights after the previous stage, shape (entries,).
        strengths: shape (entries,), from `anchor_strengths`.

    Source: docs/methods.md 1.8, R1'.
    """
    return torch.dot(strengths, values.square())


def plain_two_anchor_regularization(values: Tensor, earlier_shift: Tensor, prior: float, pretrained: float) -> Tensor:
    """Ties every entry to both anchors at once; on overlapping entries the second tie pulls earlier concepts back.

    Args:
        values: displacement from the weights after the previous stage, shape (entries,).
        earlier_shift: shift of these entries by earlier stages, same shape.
        prior: strength of the tie to the weights after the previous stage.
        pretrained: strength of the tie to the pretrained weights.

    Source: docs/methods.md 1.8, R1.
    """
    return prior * values.square().sum() + pretrained * (values + earlier_shift).square().sum()


def continual_lora_regularization(values: Tensor, earlier_shift: Tensor) -> Tensor:
    """Penalizes moving an entry by how far earlier stages moved it; zero on fresh entries.

    Source: docs/methods.md 1.8, R2, after C-LoRA's self-regularization (arXiv 2304.06027).
    """
    return (earlier_shift * values).square().sum()


def gram(states: Tensor) -> Tensor:
    """Returns the mean outer product of text states, shape (width, width), float32, from (prompts, tokens, width)."""
    rows = states.reshape(-1, states.shape[-1]).float()
    return rows.T @ rows / len(rows)


def prompts_in_context(concept: ConceptEntry, others: Sequence[str], count: int) -> list[str]:
    """Returns prompts that name an earlier concept beside other things, for the tie to it.

    Its training prompt alone would protect a scene or a style only where nothing else is drawn.

    Args:
        concept: token, class word and kind.
        others: calibration prompts; the shortest are taken, so that the token is not cut off.
        count: number of prompts.
    """
    name = f"{concept.token} {concept.class_word}"
    ending = {"scene": f"in the {name}", "style": f"in {name}"}.get(concept.kind, f"next to a {name}")
    return [f"{each} {ending}" for each in sorted(others, key=lambda each: (len(each), each))[:count]]


def check_kinds(key: str, factors: Mapping[str, float] | None) -> None:
    """Refuses factors for kinds of concepts that there are not.

    Raises:
        UserError: naming them.
    """
    if wrong := [f"{kind}: {rate}" for kind, rate in (factors or {}).items() if kind not in KINDS]:
        problem = f"has {', '.join(wrong)}, an unknown kind of concept"
        raise UserError(f"model.method.{key}", problem, f"Kinds are {', '.join(KINDS)}")


class ConceptNeuronSelection(Method):
    """Trains the values on the concept neurons and the concept's token, and holds earlier knowledge by L_reg.

    Args:
        learning_rate: learning rate of the values on the concept neurons.
        learning_rate_factors: by kind of concept, what the learning rate of the values is multiplied by; 1 for kinds
            that are not named. The own learning rate of a concept (settings in the sequence file) is taken as it is.
        token_learning_rate: learning rate of the concept's token embedding.
        token_learning_rate_factors: the same for the learning rate of the token.
        learning_rate_falls: whether the learning rates fall in a straight line, to 0 after the last step in which the
            token or the neurons learn.
        token_first: share of a stage's steps, its first ones, in which the token learns alone; the neurons learn in
            the others, and the token stands still. 0 lets both learn from the first step to the last. Where fewer
            than ``balance_steps`` are left for the neurons, L_reg never acts.
        token_norm: largest norm of the token's embedding, in norms of its start; null leaves it free.
        token_start: whether the token starts from a rare word of its own, or from the class word plus noise, where two
            concepts of one class share nearly all neurons.
        regularization: form of L_reg; ``function_space`` ties the keys and values of earlier concepts' prompts to what
            they were before the stage, and those of the calibration prompts to the pretrained ones.
        prior_strength: weight of the tie to earlier concepts; in function space the mean over them.
        pretrained_strength: weight of the tie to the pretrained weights.
        regularization_weight: factor on the balanced L_reg; it acts from the neurons' step ``balance_steps`` on, 0
            switches it off.
        reference_displacement: root mean square displacement of the neurons at which the median gradient of a tie of
            strength one equals that of the denoising loss.
        context_prompts: prompts of every earlier concept beside its training prompt that the tie to it counts, made of
            the calibration prompts.
        balance_steps: steps of the neurons over which the denoising gradient is measured; L_reg acts after them.
        detach_first_token: leave keys and values of the first token untrained, so that the unconditional prediction
            keeps its anchor.

    Raises:
        UserError: if a factor is for an unknown kind of concept.
    """

    display_name = "CNS"

    needs_neurons = True

    strengths: Tensor
    earlier_shift: Tensor
    weight: Tensor
    gradient_sum: Tensor
    general_gram: Tensor

    def __init__(  # noqa: PLR0913 - they are YAML keys
        self,
        learning_rate: NonNegative = 1e-4,
        token_learning_rate: NonNegative = 5e-4,
        learning_rate_factors: dict[str, Positive] | None = None,
        token_learning_rate_factors: dict[str, Positive] | None = None,
        learning_rate_falls: bool = False,
        token_start: TokenStart = "rare_word",
        regularization: Regularization = "function_space",
        prior_strength: NonNegative = 5.0,
        pretrained_strength: NonNegative = 1.0,
        regularization_weight: NonNegative = 1.0,
        reference_displacement: Positive = 0.01,
        balance_steps: Count = 20,
        context_prompts: Amount = 8,
        detach_first_token: bool = True,
        token_first: Probability = 0.0,
        token_norm: Positive | None = None,
    ) -> None:
        super().__init__()
        self.learning_rate, self.token_learning_rate = learning_rate, token_learning_rate
        self.learning_rate_factors, self.learning_rate_falls = learning_rate_factors, learning_rate_falls
        self.token_learning_rate_factors = token_learning_rate_factors
        check_kinds("learning_rate_factors", learning_rate_factors)
        check_kinds("token_learning_rate_factors", token_learning_rate_factors)
        self.token_start, self.starts_from_rare_word = token_start, token_start == "rare_word"
        self.regularization: Regularization = regularization
        self.prior_strength, self.pretrained_strength = prior_strength, pretrained_strength
        self.regularization_weight, self.reference_displacement = regularization_weight, reference_displacement
        self.balance_steps, self.context_prompts = balance_steps, context_prompts
        self.detach_first_token = self.detaches_first_token = detach_first_token
        self.token_first, self.token_norm = token_first, token_norm
        self.grams: dict[tuple[str, str, tuple[str, ...]], Tensor] = {}
        self.still_states: dict[str, TextStates] = {}

    def start_stage(self, context: StageContext) -> None:
        """Lays a sparse delta on the concept neurons, at zero, and prepares L_reg."""
        super().start_stage(context)
        mask = context.mask
        assert mask is not None, "the runner gives neurons to a method that needs them"
        device = context.base.device
        self.delta = SparseDelta(context.weights, mask, device)
        self.token = nn.ParameterList(context.tokens.train(context.concept.token))
        self.still_states.clear()
        # A stage that is continued is made from the same start before its state is loaded.
        self.start_norms = [row.detach().norm(dim=-1, keepdim=True) for row in self.token]
        overlapping = gather_masked(context.registry.union().bools(), mask).to(device) > 0
        shift = self.delta.origins - gather_masked(context.base_weights, mask).to(device)
        self.register_buffer("earlier_shift", shift, persistent=False)
        strengths = anchor_strengths(overlapping, self.prior_strength, self.pretrained_strength)
        self.register_buffer("strengths", strengths, persistent=False)
        for name in ("weight", "gradient_sum"):
            self.register_buffer(name, torch.zeros((), device=device))
        if self.regularization == "function_space":
            self._prepare_function_space(context)

    def _prepare_function_space(self, context: StageContext) -> None:
        # A learned concept's states never change again: each is encoded once, and a stage costs the same at any length.
        learned = zip(context.registry.entries, context.prompts[:-1], strict=False)
        prior = []
        for entry, prompts in learned:
            beside = prompts_in_context(entry, context.calibration_prompts, self.context_prompts)
            prior.append(self._gram_of(context, (*prompts, *beside), entry.sha256))
        if not context.calibration_prompts:
            problem = "is function_space, which needs the calibration prompts of a selection of neurons, and has none"
            raise UserError("model.method.regularization", problem, "Use split, or select by ImportanceScoring")
        general = self._gram_of(context, context.calibration_prompts)
        # The mean, not the sum: else a concept could move less the more were learned before it.
        mean = (sum(prior, torch.zeros_like(general)) / max(1, len(prior))).to(context.base.device)
        general = general.to(context.base.device)
        # Of the balance, at one step of the stage.
        self.register_buffer("general_gram", general, persistent=False)
        assert context.mask is not None
        shift = {name: context.weights[name] - context.base_weights[name] for name in context.mask.names}
        self.tie = QuadraticForm(context.mask, self.pretrained_strength * general, shift, self.prior_strength * mean)

    def _gram_of(self, context: StageContext, prompts: tuple[str, ...], concept: str = "") -> Tensor:
        key = (context.registry.base_fingerprint, concept, prompts)
        if key not in self.grams:
            with torch.no_grad():
                parts = [prompts[start : start + 32] for start in range(0, len(prompts), 32)]
                found = gram(torch.cat([text_states(context.base, list(part)).states for part in parts]))
                self.grams[key] = found.cpu()  # on a device they would add up: 17 MB a concept at SDXL's size
        return self.grams[key]

    def parameter_groups(self) -> list[ParameterGroup]:
        """Names the values on the neurons and the token; no weight decay, it would pull towards zero, not W_0."""
        kind, first = self.context.concept.kind, self._first_step
        of_values = self.rate(factor=(self.learning_rate_factors or {}).get(kind, 1.0))
        of_token = self.rate("token_learning_rate", (self.token_learning_rate_factors or {}).get(kind, 1.0))
        return [
            ParameterGroup("neurons", [self.delta.values], of_values, first=first),
            ParameterGroup("token", list(self.token), of_token, last=first or None),
        ]

    @property
    def _first_step(self) -> int:
        """Returns the step of the running stage from which the neurons learn; those before are the token's."""
        return max(1, round(self.token_first * self.context.steps)) if self.token_first else 0

    def text_states(self, prompts: list[str]) -> TextStates:
        """Encodes prompts; each once in the steps in which the token stands still, as nothing in them changes."""
        if any(row.requires_grad for row in self.token):
            return super().text_states(prompts)
        for prompt in prompts:
            if prompt not in self.still_states:
                # By itself: beside others it would be rounded otherwise, and a continued stage meets others.
                self.still_states[prompt] = text_states(self.context.base, [prompt])
        return TextStates.cat([self.still_states[prompt] for prompt in prompts])

    def trained_weights(self) -> dict[str, Tensor]:
        """Returns the key and value weights with the delta on them."""
        return self.delta.weights()

    def penalty(self) -> Tensor | None:
        """Returns L_reg, balanced against the denoising loss; zero while the balance is being measured."""
        if self.regularization == "none" or self.regularization_weight == 0:
            return None
        return self.weight * self._regularization()

    def notices(self) -> list[str]:
        """Says where the stage is too short for L_reg, which earlier concepts are then not held by."""
        steps = self.context.steps - self._first_step
        is_off = self.regularization == "none" or self.regularization_weight == 0
        if is_off or steps > self.balance_steps or not self.context.stage:
            return []
        learn = f"the neurons learn for {steps} steps, and it acts after {self.balance_steps} (balance_steps)"
        return [f"nothing holds the earlier concepts, L_reg never acts: {learn}"]

    def _regularization(self) -> Tensor:
        values = self.delta.values
        if self.regularization == "split":
            return two_anchor_regularization(values, self.strengths)
        if self.regularization == "plain":
            return plain_two_anchor_regularization(
                values, self.earlier_shift, self.prior_strength, self.pretrained_strength
            )
        if self.regularization == "continual_lora":
            return continual_lora_regularization(values, self.earlier_shift)
        return self.tie(values)

    def after_step(self, step: int) -> None:
        """Measures the denoising gradient over the first steps and sets the weight of L_reg from it.

        The weight makes the median gradient of a tie of strength one equal the median gradient of the denoising loss
        when the neurons have moved by the reference displacement, in the direction in which they have moved so far
        (docs/methods.md 1.8, scale). No value leaves the device.
        """
        first = self._first_step
        if first == 0 or step < first:
            self._keep_token_short()
        gradient, step = self.delta.values.grad, step - first
        if gradient is None or not 0 <= step < self.balance_steps:
            return
        # A step whose loss was not finite has its gradient emptied: it counts as the mean of those before.
        median = gradient.abs().median()
        # So does one before the first that is not empty, once that is there.
        own = torch.where(self.gradient_sum > 0, median, (step + 1) * median)
        self.gradient_sum += torch.where(median > 0, own, self.gradient_sum / max(step, 1))
        if step == self.balance_steps - 1 and self.regularization != "none":
            denoising = self.gradient_sum / self.balance_steps
            self.weight.copy_(self.regularization_weight * denoising / self._reference_gradient())

    def _keep_token_short(self) -> None:
        """Shortens the token's embedding to its largest norm, where there is one."""
        if self.token_norm is not None:
            with torch.no_grad():
                for row, norm in zip(self.token, self.start_norms, strict=True):
                    row.mul_((self.token_norm * norm / row.norm(dim=-1, keepdim=True)).clamp_max(1))

    def _reference_gradient(self) -> Tensor:
        """Returns the median gradient of a tie of strength one at the reference displacement, a scalar.

        Of one tie, not of all of L_reg: a weight that made up for earlier concepts would protect them less. At the
        displacement of the first steps, scaled: neurons that move together pull the tie harder than each by itself.
        """
        values = self.delta.values.detach()
        if self.regularization == "continual_lora":
            gradient = 2 * self.earlier_shift.square() * values
        elif self.regularization == "function_space":
            gradient = 2 * self.delta.times(self.general_gram)
        else:
            gradient = 2 * values
        # Entries that a tie leaves free have no gradient and no say; the first stage may have no others.
        median = torch.where(gradient != 0, gradient.abs(), torch.nan).nanmedian()
        displacement = values.square().mean().sqrt()
        reference = median * self.reference_displacement / displacement
        return torch.where(reference > 0, reference, 1.0)

    def finish_stage(self) -> ConceptRecord:
        """Keeps mask, values in half precision and the token."""
        return self.record(self.context.mask, self.delta.values, list(self.token))
