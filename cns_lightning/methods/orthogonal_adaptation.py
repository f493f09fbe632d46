"""Orthogonal Adaptation: low-rank deltas in directions that are drawn beforehand, and so may simply be added up.

Source: arXiv 2312.02432; docs/methods.md 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from cns_lightning.determinism import generator, normal
from cns_lightning.diffusion.layerwise import layerwise_embedding
from cns_lightning.diffusion.projections import attention_projections, single_text_encoder
from cns_lightning.errors import UserError
from cns_lightning.methods.base import Method, ParameterGroup, StageContext
from cns_lightning.methods.deltas import LowRankDelta
from cns_lightning.ranges import Amount, Count, NonNegative

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.registry.record import ConceptRecord
    from cns_lightning.sequences.sequence import Concept

Columns = Literal["random", "disjoint"]
_COLUMNS = "columns."


def orthogonal_basis(width: int, seed: int) -> Tensor:
    """Returns a random orthogonal matrix, shape (width, width), float32: the same for every concept of one seed.

    Source: arXiv 2312.02432, 3.5.
    """
    # In double precision, rounded after: machines then agree to the last bits of single precision.
    basis, triangle = torch.linalg.qr(normal((width, width), seed, "orthogonal_basis", width).double())
    # The signs that make the draw uniform, whatever the routine's convention is.
    return (basis * triangle.diagonal().sign()).float()


def chosen_columns(width: int, rank: int, seed: int, token: str, taken: Sequence[Tensor] = ()) -> Tensor:
    """Chooses a concept's columns of a basis, shape (rank,), int64, ascending.

    Args:
        width: width of the basis.
        rank: number of directions.
        seed: random seed of the basis, so that all runs of a token have the same columns.
        token: the concept's, which picks the columns.
        taken: columns that are not to be chosen.

    Raises:
        UserError: if fewer are left.
    """
    order = torch.randperm(width, generator=generator(seed, "orthogonal_columns", token, width))
    if taken:
        order = order[~torch.isin(order, torch.cat(list(taken)))]
    if len(order) < rank:
        problem = f"is {rank}, and of {width} directions {len(order)} are left for {token}"
        remedy = "Use a smaller rank, or columns: random, in another --run folder" if taken else "Use a smaller rank"
        raise UserError("model.method.rank", problem, remedy)
    return order[:rank].sort().values


class OrthogonalAdaptation(Method):
    """Trains low-rank deltas of all attention projections in drawn directions, and two layer-wise vectors.

    Prompts name the token alone: its second vector starts at the class word and stands in its place.

    Args:
        learning_rate: learning rate of the factors.
        token_learning_rate: learning rate of the vectors.
        rank: rank of the deltas.
        share: factor on every concept's delta when they are added up.
        columns: ``random`` directions, which two concepts may share; or ``disjoint`` ones, which none do.
        basis_seed: random seed of the basis, so that runs which share it may be added up.
    """

    names_class_word = False
    fuses = True
    is_layerwise = True

    def __init__(
        self,
        learning_rate: NonNegative = 1e-5,
        token_learning_rate: NonNegative = 1e-3,
        rank: Count = 20,
        share: NonNegative = 0.6,
        columns: Columns = "random",
        basis_seed: Amount = 0,
    ) -> None:
        super().__init__()
        self.learning_rate, self.token_learning_rate = learning_rate, token_learning_rate
        self.rank, self.share, self.basis_seed = rank, share, basis_seed
        self.columns: Columns = columns

    def projections(self, base: BaseModel) -> dict[str, nn.Linear]:
        """Returns all attention projections of the UNet."""
        single_text_encoder(base)
        return attention_projections(base.unet)

    def initial_embedding(self, base: BaseModel, concept: Concept, seed: int) -> list[Tensor]:
        """Starts one vector at random and one at the class word, alike for all layers."""
        return layerwise_embedding(base, concept, seed)

    def start_stage(self, context: StageContext) -> None:
        """Draws the concept's directions, one choice for each width, and lays factors on every projection."""
        super().start_stage(context)
        self.chosen = {
            width: self._columns(width, context)
            for width in sorted({weight.shape[1] for weight in context.weights.values()})
        }
        by_width = {width: self._directions(width, columns) for width, columns in self.chosen.items()}
        bases = {name: by_width[weight.shape[1]] for name, weight in context.weights.items()}
        seeds = (context.seed, context.stage)
        self.delta = LowRankDelta(context.weights, self.rank, seeds, context.base.device, bases)
        self.token = nn.ParameterList(context.tokens.train(context.concept.token))

    def _columns(self, width: int, context: StageContext) -> Tensor:
        taken = []
        if self.columns == "disjoint":
            records = [record for record in context.registry.records if record.token != context.concept.token]
            taken = [record.extra[f"{_COLUMNS}{width}"] for record in records]
        return chosen_columns(width, self.rank, self.basis_seed, context.concept.token, taken)

    def _directions(self, width: int, columns: Tensor) -> Tensor:
        return orthogonal_basis(width, self.basis_seed)[:, columns].T.contiguous()

    def parameter_groups(self) -> list[ParameterGroup]:
        """Names the vectors and the trained factors."""
        return [
            ParameterGroup("token", list(self.token), self.rate("token_learning_rate")),
            ParameterGroup("factors", list(self.delta.ups), self.rate()),
        ]

    def trained_weights(self) -> dict[str, Tensor]:
        """Returns all projections with the products added."""
        return self.delta.weights(self.delta.products())

    def finish_stage(self) -> ConceptRecord:
        """Keeps the trained factors in half precision, which columns were used, and the vectors."""
        factors = {name: (up, down[:0]) for name, (up, down) in self.delta.rounded().items()}
        extra = {f"{_COLUMNS}{width}": columns for width, columns in self.chosen.items()}
        return self.record(None, torch.zeros(0), list(self.token), factors, extra)

    def fusion_settings(self) -> dict[str, object]:
        """Returns the share and the seed of the basis."""
        return {"share": self.share, "basis_seed": self.basis_seed}

    @torch.no_grad()
    def fuse(
        self, records: Sequence[ConceptRecord], base: BaseModel, base_weights: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Adds up the concepts' deltas, each times the share.

        Source: arXiv 2312.02432, Eq. 1.
        """
        fused = {name: weight.clone() for name, weight in base_weights.items()}
        for record in records:
            widths = {up_down[1].shape[1] for up_down in record.factors.values()}
            by_width = {width: self._directions(width, record.extra[f"{_COLUMNS}{width}"]) for width in widths}
            for name, (up, down) in record.factors.items():
                fused[name] += self.share * (up.float() @ by_width[down.shape[1]])
        return fused
