"""What is kept of one concept.

token, class word, kind, prompt: what the user calls it. Embeddings: of its token, one table per text encoder.
Mask: which key and value weights it moves, one bit each, about 5 % of them. Values: by how much, one flat vector:

    mask of matrix a   mask of matrix b          matrices by name,
    . . 1 .            1 . .                     entries by flat index
    1 . . 1            . . 1
         |                |
    [a02, a10, a13,    b00, b12]                 values, float16
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cns_lightning.neurons.mask import NeuronMask

LAYERS = "layers"
"""Key of the metadata: into how many layers the vectors of a layer-wise token fall."""

RARE_WORDS = "rare_words"
"""Key of the metadata: the words from which the token started."""

KEPT_STEP = "kept_step"
"""Key of the metadata: after which optimizer step of its stage the concept stood so, where a step was chosen."""


@dataclass(eq=False)
class ConceptRecord:
    """One learned concept, exactly as it is stored.

    Attributes:
        token: the word used in prompts.
        class_word: class word, such as cat.
        kind: animal, object, scene or style.
        prompt: the prompt that stands for it.
        mask: the neurons it moves; None for a method that moves none.
        values: what is added to them, shape (neurons,), float16, in the order of ``mask.names`` and, within a matrix,
            of ascending flat index.
        embeddings: embeddings of the token, one per text encoder, each (vectors, width).
        factors: low-rank factors by parameter name: ``up`` (rows, rank) and ``down`` (rank, columns), float16; what
            is added to the weight is their product. Methods that fuse may make ``down`` again from something else and
            keep it empty, (0, columns).
        extra: further tensors by name, for methods that keep something else.
        metadata: further facts, text only.

    Raises:
        ValueError: if the values do not fit the mask, or values or factors are not float16: what is not rounded yet
            would come back changed.
    """

    token: str
    class_word: str
    kind: str
    prompt: str
    mask: NeuronMask | None
    values: Tensor
    embeddings: list[Tensor]
    factors: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        neurons = self.mask.count() if self.mask is not None else 0
        if self.values.shape != (neurons,):
            raise ValueError(f"{self.token}: values of shape {tuple(self.values.shape)} for {neurons} neurons")
        if neurons and self.values.dtype != torch.float16:
            raise ValueError(f"{self.token}: values are {self.values.dtype}, they are stored as float16")

        if any(factor.dtype != torch.float16 for pair in self.factors.values() for factor in pair):
            raise ValueError(f"{self.token}: factors are stored as float16")

    @property
    def counts(self) -> dict[str, int]:
        """Counts the neurons that are moved and the weights they were chosen from."""
        moved = self.moved()
        if moved is None:
            return {"neurons": 0, "key_value_weights": 0}
        return {"neurons": moved.count(), "key_value_weights": moved.total()}

    @property
    def trained(self) -> int:
        """Counts the numbers that were trained: values, factors and embeddings."""
        factors = [factor for pair in self.factors.values() for factor in pair]
        return sum(each.numel() for each in (self.values, *factors, *self.embeddings))

    @property
    def layers(self) -> int:
        """Returns into how many layers the embeddings' vectors fall; 1 for a token that every layer reads alike."""
        return int(self.metadata.get(LAYERS, "1"))

    @property
    def rare_words(self) -> tuple[str, ...]:
        """Returns the words from which the token started; empty where it started from something else."""
        return tuple(self.metadata.get(RARE_WORDS, "").split())

    @property
    def kept_step(self) -> int | None:
        """Returns the optimizer step of the stage that was chosen; None where the last was kept without a choice."""
        return int(self.metadata[KEPT_STEP]) if KEPT_STEP in self.metadata else None

    def moved(self) -> NeuronMask | None:
        """Returns the neurons that the concept moves: those of its mask, or all of a matrix with factors."""
        if not self.factors:
            return self.mask
        shapes = {name: (len(up), down.shape[1]) for name, (up, down) in self.factors.items()}
        return NeuronMask.from_bools({name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()})

    def add_to(self, weights: dict[str, Tensor], strength: float = 1.0) -> None:
        """Adds the values and the products of factors to weights in place, float32.

        One addition per neuron; products rank by rank, because a matrix product may add up in another order on another
        machine, and what is added must be the same bits everywhere.

        Args:
            weights: weights by parameter name, float32, contiguous, on the CPU.
            strength: factor on what is added; 1 adds the very bits, 0 leaves the weights as they are.

        Raises:
            ValueError: if the mask is not of these weights; then nothing was added.
        """
        moved = self.moved()
        for name, shape in moved.shapes.items() if moved is not None else ():
            if name not in weights or tuple(weights[name].shape) != shape:
                raise ValueError(f"{self.token} moves {name} of shape {shape}, the weights have no such matrix")
        for name, (up, down) in self.factors.items():
            for column, row in zip(up.float().T, down.float(), strict=True):
                weights[name] += column[:, None] * row * strength
        if self.mask is None:
            return
        # By numpy: torch's threads would fight with the one that reads the next record (`replay.read_ahead`).
        values, first = self.values.numpy().astype(np.float32) * strength, 0
        for name, count in self.mask.counts().items():
            weights[name].view(-1).numpy()[self.mask.indices(name).numpy()] += values[first : first + count]
            first += count
