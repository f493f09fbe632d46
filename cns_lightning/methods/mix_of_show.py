"""Mix-of-Show: ED-LoRA on all attention and two layer-wise vectors, each concept by itself; then gradient fusion.

Source: arXiv 2305.18292 and its published code; docs/methods.md 5. Left out: attention regularization, it needs masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.layerwise import LayerwiseText, layerwise_embedding
from cns_lightning.diffusion.projections import TEXT_PREFIX, attention_projections, text_projections, write_weights
from cns_lightning.diffusion.sampling import generate_pairs
from cns_lightning.diffusion.text import text_states
from cns_lightning.methods.base import Method, ParameterGroup, StageContext
from cns_lightning.methods.deltas import LowRankDelta
from cns_lightning.methods.gradient_fusion import RIDGE, GramFusion, IterativeFusion, LayerFusion, recorded_inputs
from cns_lightning.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.registry.record import ConceptRecord
    from cns_lightning.sequences.sequence import Concept

    Weights = dict[str, Tensor]

Solver = Literal["gram", "iterations"]


class MixOfShow(Method):
    """Trains low-rank deltas of all attention projections, the text encoder's too, and two layer-wise vectors.

    Prompts name the token alone: its second vector starts at the class word and stands in its place.

    Args:
        learning_rate: learning rate of the factors in the UNet.
        text_learning_rate: learning rate of the factors in the text encoder.
        token_learning_rate: learning rate of the vectors.
        rank: rank of the deltas.
        weight_decay: weight decay of everything.
        largest_norm: the vectors stay for good once their mean norm reaches it; 0 sets no limit.
        solver: solver of the fusion: ``iterations`` as published, or the closed form ``gram``.
        iterations: number of iterations of L-BFGS for keys, values and the text encoder.
        other_iterations: number of iterations of L-BFGS for the other projections.
        fusion_steps: sampling steps on which the other projections' inputs are recorded.
        ridge: ridge of the closed form, as a share of the inputs' mean square; iterations end early in its place.
    """

    display_name = "Mix-of-Show"

    names_class_word = False
    fuses = True
    is_layerwise = True
    learning_rate_falls = True

    is_still: Tensor
    kept: Tensor

    def __init__(  # noqa: PLR0913 - they are YAML keys
        self,
        learning_rate: NonNegative = 1e-4,
        text_learning_rate: NonNegative = 1e-5,
        token_learning_rate: NonNegative = 1e-3,
        rank: Count = 4,
        weight_decay: NonNegative = 0.01,
        largest_norm: NonNegative = 0.55,
        solver: Solver = "iterations",
        iterations: Count = 500,
        other_iterations: Count = 50,
        fusion_steps: Count = 20,
        ridge: Positive = RIDGE,
    ) -> None:
        super().__init__()
        self.learning_rate, self.text_learning_rate = learning_rate, text_learning_rate
        self.token_learning_rate, self.rank, self.weight_decay = token_learning_rate, rank, weight_decay
        self.largest_norm, self.ridge = largest_norm, ridge
        self.solver: Solver = solver
        self.iterations, self.other_iterations, self.fusion_steps = iterations, other_iterations, fusion_steps

    def projections(self, base: BaseModel) -> dict[str, nn.Linear]:
        """Returns all attention projections of UNet and text encoder."""
        return attention_projections(base.unet) | text_projections(base)

    def initial_embedding(self, base: BaseModel, concept: Concept, seed: int) -> list[Tensor]:
        """Starts one vector at random and one at the class word, alike for all layers."""
        return layerwise_embedding(base, concept, seed)

    def start_stage(self, context: StageContext) -> None:
        """Lays factors on every projection of the pretrained model; their products are zero at the start."""
        super().start_stage(context)
        device = context.base.device
        self.delta = LowRankDelta(context.weights, self.rank, (context.seed, context.stage), device)
        self.token = nn.ParameterList(context.tokens.train(context.concept.token))
        self.register_buffer("is_still", torch.zeros((), dtype=torch.bool, device=device))
        self.register_buffer("kept", self.token[0].detach().clone())

    def parameter_groups(self) -> list[ParameterGroup]:
        """Names the vectors and the factors."""
        text: list[nn.Parameter] = []
        unet: list[nn.Parameter] = []
        for name, up, down in zip(self.delta.names, self.delta.ups, self.delta.downs, strict=True):
            (text if name.startswith(TEXT_PREFIX) else unet).extend([up, down])  # type: ignore[list-item]
        return [
            ParameterGroup("token", list(self.token), self.rate("token_learning_rate"), self.weight_decay),
            ParameterGroup("factors", unet, self.rate(), self.weight_decay),
            ParameterGroup("text factors", text, self.rate("text_learning_rate"), self.weight_decay),
        ]

    def trained_weights(self) -> Weights:
        """Returns all projections with the products added."""
        return self.delta.weights(self.delta.products())

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Keeps the vectors where they are once they are long enough; no value leaves the device."""
        if not self.largest_norm:
            return
        (vectors,) = self.token
        vectors.copy_(torch.where(self.is_still, self.kept, vectors))
        self.kept.copy_(vectors)
        self.is_still |= vectors.norm(dim=-1).mean() >= self.largest_norm

    def finish_stage(self) -> ConceptRecord:
        """Keeps the factors in half precision, and the vectors."""
        return self.record(None, torch.zeros(0), list(self.token), self.delta.rounded())

    def fusion_settings(self) -> dict[str, object]:
        """Returns the solver with its settings, and the sampling steps."""
        settings: dict[str, object] = {"solver": self.solver, "fusion_steps": self.fusion_steps}
        if self.solver == "gram":
            return settings | {"ridge": self.ridge}
        return settings | {"iterations": self.iterations, "other_iterations": self.other_iterations}

    @torch.no_grad()
    def fuse(self, records: Sequence[ConceptRecord], base: BaseModel, base_weights: Mapping[str, Tensor]) -> Weights:
        """Fuses the text encoder first, then keys and values that read it, then the rest of the UNet's attention."""
        projections = self.projections(base)
        keys_and_values = list(key_value_projections(base.unet))
        others = [name for name in projections if name not in keys_and_values and not name.startswith(TEXT_PREFIX)]
        deltas = [_deltas(record, base_weights) for record in records]
        write_weights(base, base_weights)
        fused = self._fuse_text(records, base, base_weights, deltas)
        write_weights(base, fused)
        fused |= self._fuse_keys_and_values(records, base, base_weights, deltas)
        write_weights(base, fused)
        layers = {name: self._layer(base, base_weights[name], self.other_iterations) for name in others}
        for record, delta in zip(records, deltas, strict=True):
            write_weights(base, {name: base_weights[name] + delta[name] for name in others})
            with recorded_inputs({name: projections[name] for name in others}, _Adder(layers, delta)):
                generate_pairs(base.pipeline(), [(record.prompt, 0)], self.fusion_steps, guidance=1.0)
        return fused | {name: layer.solve() for name, layer in layers.items()}

    def _layer(self, base: BaseModel, weight: Tensor, iterations: int) -> LayerFusion:
        if self.solver == "gram":
            return GramFusion(weight, self.ridge, base.device)
        return IterativeFusion(weight, iterations, base.device)

    def _fuse_text(
        self,
        records: Sequence[ConceptRecord],
        base: BaseModel,
        base_weights: Mapping[str, Tensor],
        deltas: Sequence[Weights],
    ) -> Weights:
        projections = {name: each for name, each in self.projections(base).items() if name.startswith(TEXT_PREFIX)}
        layers = {name: self._layer(base, base_weights[name], self.iterations) for name in projections}
        for record, delta in zip(records, deltas, strict=True):
            prompts = [record.prompt, record.token]
            # Every prompt is read once a layer; padding does not count.
            read = text_states(base, prompts).positions.repeat_interleave(record.layers, 0)
            write_weights(base, {name: base_weights[name] + delta[name] for name in projections})
            with recorded_inputs(projections, _Adder(layers, delta, read)):
                text_states(base, prompts)
        return {name: layer.solve() for name, layer in layers.items()}

    def _fuse_keys_and_values(
        self,
        records: Sequence[ConceptRecord],
        base: BaseModel,
        base_weights: Mapping[str, Tensor],
        deltas: Sequence[Weights],
    ) -> Weights:
        """Fuses on the states of the concepts' own tokens and of the end token, from the fused text encoder."""
        layers = {
            name: self._layer(base, base_weights[name], self.iterations) for name in key_value_projections(base.unet)
        }
        text = LayerwiseText.of(base)
        first_added, end = base.vocabulary_sizes[0], base.tokenizers[0].eos_token_id
        for record, delta in zip(records, deltas, strict=True):
            encoded = text_states(base, [record.prompt, record.token])
            counted = ((encoded.token_ids >= first_added) | (encoded.token_ids == end)) & encoded.positions
            states = encoded.states[counted]
            for number, (name, layer) in enumerate(layers.items()):
                layer.add(text.own_part(states, number // 2), delta[name])
        return {name: layer.solve() for name, layer in layers.items()}


def _deltas(record: ConceptRecord, base_weights: Mapping[str, Tensor]) -> Weights:
    moved = {name: torch.zeros_like(weight) for name, weight in base_weights.items()}
    record.add_to(moved)
    return moved


class _Adder:
    """Adds what projections read to their layers' sums."""

    def __init__(self, layers: Mapping[str, LayerFusion], deltas: Weights, read: Tensor | None = None) -> None:
        self.layers, self.deltas, self.read = layers, deltas, read

    def __call__(self, name: str, inputs: Tensor) -> None:
        inputs = inputs.flatten(0, -2) if self.read is None else inputs[self.read]
        self.layers[name].add(inputs, self.deltas[name])
