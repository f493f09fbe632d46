"""What a run has learned, taken out of its folder: the base model, its weights before and after, the tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

import torch

from cns_lightning.diffusion.base_source import MINIATURE, is_hub_id
from cns_lightning.diffusion.projections import TEXT_PREFIX, write_weights
from cns_lightning.errors import UserError
from cns_lightning.export.family import Family
from cns_lightning.pipeline import RunModel
from cns_lightning.registry.registry import NeuronRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from diffusers import DiffusionPipeline
    from torch import Tensor

    from cns_lightning.runs.folder import RunFolder

ONE_VECTOR_METHOD = "learn the sequence with a method whose tokens are the same in every layer, such as cns"


@dataclass(frozen=True, eq=False)
class LearnedConcept:
    """One concept as an export names it; its mask and values stay on disk.

    Attributes:
        token: the word used in prompts.
        class_word: what it is.
        kind: animal, object, scene or style.
        prompt: the prompt that stands for it.
        embeddings: of its token, for each text encoder of shape (vectors, width), float32.
        moves_weights: whether it is more than a token.
    """

    token: str
    class_word: str
    kind: str
    prompt: str
    embeddings: tuple[Tensor, ...]
    moves_weights: bool

    @property
    def says_class_word(self) -> bool:
        """Returns whether the concept was learned with its class word behind the token."""
        return f"{self.token} {self.class_word}" in self.prompt


@dataclass(frozen=True)
class Learned:
    """The concepts that are exported, before the base model is loaded; made by `of`.

    Attributes:
        folder: folder of the run.
        registry: registry of the run.
        concepts: the exported ones, in learning order.
    """

    folder: RunFolder
    registry: NeuronRegistry
    concepts: tuple[LearnedConcept, ...]

    @classmethod
    def of(cls, folder: RunFolder, upto: str | None = None) -> Learned:
        """Reads the concepts of a run.

        Args:
            folder: folder of the run.
            upto: the last concept to export; None exports all.

        Raises:
            UserError: if nothing was learned, there is no such concept, files are damaged, or a token has other vectors
                in every layer, which no file format but a run's own can hold.
        """
        registry = NeuronRegistry.load(folder.registry)
        if not registry.tokens:
            raise UserError(f"--run {folder.path}", "has learned no concept yet", "Run fit on it first")
        count = len(registry.tokens) - (len(registry.later(upto)) if upto is not None else 0)
        concepts = []
        for entry in registry.entries[:count]:
            record = registry.record(entry.token)
            if record.layers > 1:
                problem = f"{record.token} has vectors of its own for each of {record.layers} layers"
                remedy = f"No other program reads such a token: draw with generate, or {ONE_VECTOR_METHOD}"
                raise UserError(f"{folder.registry / entry.file}: embeddings", problem, remedy)
            has_weights = record.mask is not None or bool(record.factors)
            concepts.append(
                LearnedConcept(
                    record.token,
                    record.class_word,
                    record.kind,
                    record.prompt,
                    tuple(record.embeddings),
                    has_weights,
                )
            )
        return cls(folder, registry, tuple(concepts))

    @property
    def last(self) -> str:
        """Returns the token of the last exported concept."""
        return self.concepts[-1].token

    @property
    def moves_weights(self) -> bool:
        """Returns whether there is more to export than tokens."""
        return any(concept.moves_weights for concept in self.concepts)

    def check_moves_weights(self, option: str) -> None:
        """Refuses what has no meaning for concepts that are tokens alone.

        Args:
            option: option that asks for weights, for the message.

        Raises:
            UserError: if no concept moves weights.
        """
        if not self.moves_weights:
            remedy = "Use --format webui, which writes one file per token, or diffusers"
            raise UserError(option, "the run's concepts are tokens alone, they move no weights", remedy)

    def check_adds_up(self, option: str) -> None:
        """Refuses what needs the part of each concept.

        Args:
            option: option that asks for parts, for the message.

        Raises:
            UserError: if the run's method makes one model of all concepts.
        """
        if self.registry.fused_by is not None:
            method = self.registry.fused_by.rsplit(".", 1)[-1]
            problem = f"{method} fuses concepts into one set of weights, so none has a part of its own"
            raise UserError(option, problem, "Leave it out")

    def load(self, base_model: str | None = None) -> LearnedModel:
        """Loads the base model and makes it know the tokens; the weights are added up when they are asked for.

        Args:
            base_model: where the base model is now; None where the run had it.

        Raises:
            UserError: if the base model is not to be found or is another one.
        """
        return LearnedModel(self, RunModel(self.folder, self.registry, base_model))


class LearnedModel:
    """A base model before and after the exported concepts, float32, on the CPU.

    Attributes:
        learned: the concepts.
        base: the base model, which knows the tokens; its weights are the pretrained ones until `folded`.
        pretrained: pretrained weights of the projections that the run's method moves, by parameter name.
    """

    def __init__(self, learned: Learned, model: RunModel) -> None:
        self.learned, self.base, self.pretrained = learned, model.base, model.pretrained
        self._model = model
        self._pipeline = model.pipe
        self._trained: dict[str, Tensor] | None = None
        learned.registry.apply_tokens(self._pipeline, learned.last)

    @property
    def family(self) -> Family:
        """Returns for which base models of other programs the export is."""
        return Family.of(
            width=self.base.text_width,
            text_encoders=len(self.base.text_encoders),
            prediction=self.base.noise_scheduler.config["prediction_type"],
            resolution=self.base.resolution,
        )

    @property
    def base_name(self) -> str:
        """Returns the base model's name without the place it has on this machine."""
        source = self.learned.registry.base_model
        return source if source == MINIATURE or is_hub_id(source) else PureWindowsPath(source).name

    @property
    def folded_in(self) -> str:
        """Returns which LoRA files are part of the base model, a phrase that follows its name; empty for none."""
        return self.learned.registry.source.folded_in

    @property
    def base_hub_id(self) -> str | None:
        """Returns the hub id of the base model, if it has one."""
        return self.base_name if is_hub_id(self.base_name) else None

    def trained(self) -> dict[str, Tensor]:
        """Returns the weights after the exported concepts, by parameter name."""
        if self._trained is None:
            self._trained = self._model.weights_after(len(self.learned.concepts))
        return self._trained

    def folded(self) -> DiffusionPipeline:
        """Returns a plain pipeline with tokens and weights; `base` has them from then on."""
        if self.learned.moves_weights:
            write_weights(self._pipeline, self.trained())
        return self._pipeline

    def delta(self) -> dict[str, Tensor]:
        """Returns what all exported concepts change, by parameter name of the UNet.

        Raises:
            UserError: if weights of a text encoder move, for which the formats of differences have no common place.
        """
        moved = self.trained()
        if any(name.startswith(TEXT_PREFIX) for name in moved):
            raise UserError(
                "--format", "the run's method moves weights of the text encoder too", "Use --format diffusers"
            )
        is_sum = self.learned.registry.fused_by is None
        added = self._added([concept.token for concept in self.learned.concepts]) if is_sum else {}
        return {name: difference(weight, self.pretrained[name], added.get(name)) for name, weight in moved.items()}

    def count_inexact(self, delta: Mapping[str, Tensor]) -> int:
        """Counts the weights that a delta, added in float32, does not bring to the run's own, bit for bit."""
        trained = self.trained()
        return sum(int((self.pretrained[name] + each.float() != trained[name]).sum()) for name, each in delta.items())

    def delta_of(self, token: str) -> dict[str, Tensor]:
        """Returns what one concept adds, by parameter name; for concepts that add up.

        Raises:
            UserError: if its file is missing or damaged.
        """
        return self._added([token])

    def _added(self, tokens: Sequence[str]) -> dict[str, Tensor]:
        total = {name: torch.zeros_like(weight) for name, weight in self.pretrained.items()}
        for token in tokens:
            self.learned.registry.record(token).add_to(total)
        return total


def difference(new: Tensor, old: Tensor, likely: Tensor | None = None) -> Tensor:
    """Returns what, added to ``old`` in the same precision, gives ``new``.

    Where a weight changes its sign and ends smaller than what was added, there may be no such number; the sum is then
    off by half a unit in the last place of what was added.

    Args:
        new: any shape.
        old: of the same shape.
        likely: what was added; taken wherever it gives ``new``, because it has fewer digits than ``new - old``.
    """
    rest = new - old
    return rest if likely is None else torch.where(old + likely == new, likely, rest)
