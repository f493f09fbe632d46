"""Sets of neurons: which entries of which weight matrices, one bit each."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Bits = np.ndarray


class NeuronMask:
    """A set of neurons (weight entries) of several matrices, packed to a bit per entry.

    A matrix is read row by row; entry i is bit ``i % 8``, counted from the lowest, of byte ``i // 8``. Matrices stand
    in the order of their names, so that values stored per entry have one order everywhere. Masks never change;
    operators give new ones: ``a & b`` (in both), ``a | b`` (in either), ``a - b`` (in a and not in b). Both must speak
    of the same matrices.

    Args:
        shapes: shape of every matrix.
        bits: the packed entries of every matrix, uint8, shape (ceil(entries / 8),), spare bits zero.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], bits: Mapping[str, Bits]) -> None:
        self.names: tuple[str, ...] = tuple(sorted(shapes))
        self.shapes = {name: tuple(int(size) for size in shapes[name]) for name in self.names}
        self._bits = {name: bits[name] for name in self.names}
        self._indices: Mapping[str, np.ndarray] = {}

    @cached_property
    def _bits(self) -> dict[str, Bits]:
        """Packs the indices of a mask that was made of them; most such masks are only added up."""
        packed = {}
        for name in self.names:
            entries = np.zeros(math.prod(self.shapes[name]), np.bool_)
            entries[self._indices[name]] = True
            packed[name] = np.packbits(entries, bitorder="little")
        return packed

    @classmethod
    def from_indices(cls, shapes: Mapping[str, tuple[int, ...]], indices: Mapping[str, np.ndarray]) -> NeuronMask:
        """Takes the flat indices of every matrix's neurons, int64, ascending, each once."""
        mask = cls.__new__(cls)
        mask.names = tuple(sorted(shapes))
        mask.shapes = {name: tuple(int(size) for size in shapes[name]) for name in mask.names}
        mask._indices = indices
        return mask

    @classmethod
    def from_bools(cls, masks: Mapping[str, Tensor]) -> NeuronMask:
        """Packs bool tensors, any device.

        Raises:
            ValueError: if a tensor is not bool.
        """
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise ValueError(f"mask of {name} is {mask.dtype}, not bool")
        bits = {name: np.packbits(mask.cpu().numpy().reshape(-1), bitorder="little") for name, mask in masks.items()}
        return cls({name: tuple(mask.shape) for name, mask in masks.items()}, bits)

    @classmethod
    def empty(cls, shapes: Mapping[str, tuple[int, ...]]) -> NeuronMask:
        """Returns the mask without neurons."""
        return cls(shapes, {name: np.zeros(-(-math.prod(shape) // 8), np.uint8) for name, shape in shapes.items()})

    def bools(self) -> dict[str, Tensor]:
        """Unpacks to bool tensors of the matrices' shapes, on the CPU."""
        return {name: torch.from_numpy(self.flat(name)).view(self.shapes[name]) for name in self.names}

    def flat(self, name: str) -> Bits:
        """Returns a matrix's entries in one row, bool, shape (entries,); those of the mask are True."""
        return np.unpackbits(self._bits[name], count=math.prod(self.shapes[name]), bitorder="little").view(np.bool_)

    def indices(self, name: str) -> Tensor:
        """Returns the flat indices of a matrix's neurons, ascending, int64, on the CPU."""
        return torch.from_numpy(self._indices[name] if self._indices else np.flatnonzero(self.flat(name)))

    def counts(self) -> dict[str, int]:
        """Counts the neurons of every matrix."""
        if self._indices:
            return {name: len(self._indices[name]) for name in self.names}
        return {name: int(np.bitwise_count(self._bits[name]).sum(dtype=np.int64)) for name in self.names}

    def count(self) -> int:
        """Counts the neurons."""
        return sum(self.counts().values())

    def total(self) -> int:
        """Counts all entries of all matrices, in the mask or not."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def iou(self, other: NeuronMask) -> float:
        """Returns the number of neurons in both over that of neurons in either, all matrices pooled; 0 without any."""
        either = (self | other).count()
        return (self & other).count() / either if either else 0.0

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns the packed form as tensors: ``NAME.bits`` uint8 and ``NAME.shape`` int64 for every matrix."""
        tensors = {}
        for name in self.names:
            tensors[f"{name}.bits"] = torch.from_numpy(self._bits[name].copy())
            tensors[f"{name}.shape"] = torch.tensor(self.shapes[name], dtype=torch.int64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> NeuronMask:
        """Takes what `to_tensors` gave.

        Raises:
            ValueError: if bits and shapes do not fit.
        """
        names = [key.removesuffix(".bits") for key in tensors if key.endswith(".bits")]
        if any(f"{name}.shape" not in tensors for name in names):
            raise ValueError("bits without a shape")
        shapes = {name: tuple(tensors[f"{name}.shape"].tolist()) for name in names}
        bits = {name: tensors[f"{name}.bits"].cpu().numpy() for name in names}
        for name in names:
            if len(bits[name]) != -(-math.prod(shapes[name]) // 8):
                raise ValueError(f"{name} has {len(bits[name])} bytes for shape {shapes[name]}")
        return cls(shapes, bits)

    def __and__(self, other: NeuronMask) -> NeuronMask:
        return self._combined(other, np.bitwise_and)

    def __or__(self, other: NeuronMask) -> NeuronMask:
        return self._combined(other, np.bitwise_or)

    def __sub__(self, other: NeuronMask) -> NeuronMask:
        # a & ~b leaves the spare bits zero, because they are zero in a.
        return self._combined(other, lambda ours, theirs: ours & ~theirs)

    def _combined(self, other: NeuronMask, combine: Callable[[Bits, Bits], Bits]) -> NeuronMask:
        if self.shapes != other.shapes:
            raise ValueError("masks of different matrices cannot be combined")
        return NeuronMask(self.shapes, {name: combine(self._bits[name], other._bits[name]) for name in self.names})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NeuronMask):
            return NotImplemented
        same = (np.array_equal(self._bits[name], other._bits[name]) for name in self.names)
        return self.shapes == other.shapes and all(same)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"NeuronMask({self.count()} of {self.total()} neurons, {len(self.names)} matrices)"
