"""What a method of continual personalization is: its doors, through which the runner reaches it.

A method lives in one file beside this one and is named in YAML by its class path. It never imports another method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.start_embeddings import initial_embedding
from cns_lightning.diffusion.text import TextStates, text_states
from cns_lightning.registry.record import LAYERS, RARE_WORDS, ConceptRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.diffusion.text import ConceptTokens
    from cns_lightning.neurons.mask import NeuronMask
    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.sequences.sequence import Concept


@dataclass(frozen=True)
class ParameterGroup:
    """Tensors that share a learning rate.

    Attributes:
        first, last: optimizer steps of the stage between which they learn, ``last`` not among them; None is the
            stage's end.
    """

    name: str
    parameters: list[nn.Parameter]
    learning_rate: float
    weight_decay: float = 0.0
    first: int = 0
    last: int | None = None


@dataclass(frozen=True)
class StageContext:
    """Everything a method may look at when a stage starts.

    Attributes:
        stage: number of the stage, from 0.
        concept: concept of the stage.
        base: the base model; its projections hold the weights after the previous stage.
        tokens: the learned tokens; the concept's own is there already, at its initial embedding.
        registry: the concepts learned before.
        base_weights: pretrained weights of the method's projections by parameter name, float32.
        weights: from which the stage starts: those after the previous stage, or the pretrained ones where concepts are
            fused; float32.
        mask: the concept neurons, or None where the run selects none.
        prompts: for every earlier concept and this one, in order, the prompts that name it.
        calibration_prompts: prompts of anything else; empty where the run selects no neurons.
        seed: base random seed.
        rare_words: the words from which the concept's token started; empty where it started from something else.
        steps: optimizer steps of the stage.
    """

    stage: int
    concept: Concept
    base: BaseModel
    tokens: ConceptTokens
    registry: NeuronRegistry
    base_weights: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    mask: NeuronMask | None
    prompts: tuple[tuple[str, ...], ...]
    calibration_prompts: tuple[str, ...]
    seed: int
    steps: int
    rare_words: tuple[str, ...] = ()


class Method(nn.Module, ABC):
    """One way to teach a text-to-image model one concept after another; constructor arguments are its YAML keys.

    Everything a stopped stage needs to go on exactly must be a parameter or a persistent buffer created in
    ``start_stage``: the runner creates the stage anew and then loads them.
    """

    display_name = ""
    """The method's name in tables and figures; without one, that of its file in words."""

    needs_neurons = False
    """Whether a stage cannot start without concept neurons."""

    detaches_first_token = False
    """Whether keys and values of the first token stay untrained (docs/methods.md 1.8)."""

    names_class_word = True
    """Whether prompts say what a concept is, as in ``a photo of <new1> cat``, or its token alone."""

    fuses = False
    """Whether the concepts become one model by `fuse`; then every stage starts from the pretrained weights."""

    prior_weight = 0.0
    """Factor on the denoising loss of pictures of the class, drawn by the base model; 0 draws none.

    In Custom Diffusion's published code the concept's loss is summed over the latent channels, and the class's loss is
    a mean. The module divides the weight by the number of channels instead, so that losses read alike for every method.
    """

    is_layerwise = False
    """Whether tokens have vectors of their own for every cross-attention layer."""

    learning_rate_falls = False
    """Whether learning rates fall in a straight line, to 0 at a stage's end."""

    starts_from_rare_word = False
    """Whether a concept's token starts from a rare word of the base model (`diffusion.rare_words`)."""

    context: StageContext

    def projections(self, base: BaseModel) -> dict[str, nn.Linear]:
        """Returns the projections whose weights the method may move, by parameter name, always in the same order.

        Raises:
            UserError: if the base model has none, or is of a kind the method is not made for.
        """
        return key_value_projections(base.unet)

    def fuse(
        self, records: Sequence[ConceptRecord], base: BaseModel, base_weights: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Makes one set of weights of several concepts; for methods that fuse.

        Args:
            records: at least one, in learning order.
            base: the base model, which knows the concepts' tokens; the weights of its projections may be overwritten:
                the caller writes what this gives.
            base_weights: pretrained weights of the projections by parameter name, float32, on the CPU.
        """
        raise NotImplementedError

    def fusion_settings(self) -> dict[str, object]:
        """Returns the settings that `fuse` depends on, by name."""
        return {}

    def initial_embedding(self, base: BaseModel, concept: Concept, seed: int) -> list[Tensor]:
        """Returns where a token starts that starts from no rare word: from its class word.

        Returns:
            For each encoder, shape (vectors, width), float32, on the CPU.

        Raises:
            UserError: if nothing is left of the class word when it is read.
        """
        return initial_embedding(base, concept.class_word, seed, concept.token)

    def start_stage(self, context: StageContext) -> None:
        """Creates what the stage trains; overriders call this first."""
        self.context = context

    @abstractmethod
    def parameter_groups(self) -> list[ParameterGroup]:
        """Names what the optimizer moves, in an order that is the same in every process; rates are those of `rate`."""

    def rate(self, name: str = "learning_rate", factor: float = 1.0) -> float:
        """Returns a learning rate of the running stage: that of the concept's settings, else that of the run.

        Args:
            name: argument and attribute of the method.
            factor: factor on the run's; a concept's own counts as it is.
        """
        own = self.context.concept.settings.rate(name)
        return factor * getattr(self, name) if own is None else own

    def text_states(self, prompts: list[str]) -> TextStates:
        """Encodes prompts with the learned tokens; the gradient reaches the token that is being trained."""
        return text_states(self.context.base, prompts, with_gradient=torch.is_grad_enabled())

    def trained_weights(self) -> dict[str, Tensor]:
        """Returns the weights to denoise with where they differ from the model's own, by parameter name."""
        return {}

    def penalty(self) -> Tensor | None:
        """Returns what is added to the denoising loss, a scalar, or None for nothing."""
        return None

    def after_step(self, step: int) -> None:
        """Acts after an optimizer step, while the gradients still stand; ``step`` counts from 0 in every stage."""

    def notices(self) -> list[str]:
        """Returns what a user should know of the stage that has started, a sentence each without its full stop."""
        return []

    @abstractmethod
    def finish_stage(self) -> ConceptRecord:
        """Returns what is kept of the concept, rounded as it is stored; the runner folds exactly this.

        Without side effects, and of tensors of its own: `Snapshots` also calls it in the middle of a stage, on one
        rank alone, and training goes on as if it had not.
        """

    def record(
        self,
        mask: NeuronMask | None,
        values: Tensor,
        rows: list[nn.Parameter],
        factors: dict[str, tuple[Tensor, Tensor]] | None = None,
        extra: dict[str, Tensor] | None = None,
    ) -> ConceptRecord:
        """Makes the record of the running stage: the values in half precision, the token in single."""
        concept = self.context.concept
        return ConceptRecord(
            token=concept.token,
            class_word=concept.class_word,
            kind=concept.kind,
            prompt=self.context.prompts[-1][0],
            mask=mask,
            values=values.detach().half().cpu(),
            factors=factors or {},
            extra=extra or {},
            metadata=self._metadata(),
            embeddings=[row.detach().float().cpu().clone() for row in rows],
        )

    def _metadata(self) -> dict[str, str]:
        layers = {LAYERS: str(self.context.tokens.layers)} if self.is_layerwise else {}
        return layers | ({RARE_WORDS: " ".join(self.context.rare_words)} if self.context.rare_words else {})
