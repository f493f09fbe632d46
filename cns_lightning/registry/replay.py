"""Adds up several concepts, one after another: their weights and the union of their masks.

Float addition depends on its order, so records are always added in learning order, one addition per neuron and concept.
The last result is remembered: after the 100th concept one record is added, not a hundred.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from cns_lightning.neurons.mask import NeuronMask
    from cns_lightning.registry.files import ConceptEntry
    from cns_lightning.registry.record import ConceptRecord

    Reader = Callable[[ConceptEntry], ConceptRecord]


def read_ahead(entries: Sequence[ConceptEntry], read: Reader) -> Iterator[ConceptRecord]:
    """Yields records in order; each is read in a thread while the one before is in use, never two at once.

    Args:
        entries: the concepts.
        read: gives the record of an entry; its errors are raised here.
    """
    if len(entries) < 2:
        yield from map(read, entries)
        return
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(read, entries[0])
        for entry in entries[1:]:
            record, coming = coming.result(), pool.submit(read, entry)
            yield record
        yield coming.result()


class Replay:
    """Adds concepts to base weights and joins their masks, and remembers the last result of each."""

    def __init__(self) -> None:
        self._base: dict[str, Tensor] = {}
        self._base_versions: list[int] = []
        self._weights: dict[str, Tensor] = {}
        self._added: list[tuple[str, float]] = []
        self._union: NeuronMask | None = None
        self._joined: list[str] = []

    def weights(
        self,
        base: Mapping[str, Tensor],
        entries: Sequence[ConceptEntry],
        read: Reader,
        strengths: Mapping[str, float] | None = None,
    ) -> dict[str, Tensor]:
        """Returns base weights plus every concept's values, float32, on the CPU; tensors of the caller's own.

        Args:
            base: pretrained weights by parameter name.
            entries: the concepts, in learning order.
            read: gives the record of an entry.
            strengths: factors on concepts' values by token; 1 for those that are not named.
        """
        asked = [(entry.sha256, (strengths or {}).get(entry.token, 1.0)) for entry in entries]
        if not self._stands_on(base) or asked[: len(self._added)] != self._added:
            self._start_on(base)
        missing = asked[len(self._added) :]
        for record, each in zip(read_ahead(entries[len(self._added) :], read), missing, strict=True):
            record.add_to(self._weights, each[1])
            self._added.append(each)
        return {name: weight.clone() for name, weight in self._weights.items()}

    def _stands_on(self, base: Mapping[str, Tensor]) -> bool:
        # Tensors made under inference mode do not count their changes: never trust them to be the same.
        if list(base) != list(self._base) or any(tensor.is_inference() for tensor in base.values()):
            return False
        are_same = all(base[name] is tensor for name, tensor in self._base.items())
        return are_same and [tensor._version for tensor in base.values()] == self._base_versions

    def _start_on(self, base: Mapping[str, Tensor]) -> None:
        self._base = dict(base)
        self._base_versions = [0 if tensor.is_inference() else tensor._version for tensor in base.values()]
        self._weights = {
            name: weight.detach().to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)
            for name, weight in base.items()
        }
        self._added = []

    def union(self, entries: Sequence[ConceptEntry], read: Reader) -> NeuronMask | None:
        """Returns the neurons that any concept moves; None if none has a mask.

        Args:
            entries: the concepts.
            read: gives the record of an entry.
        """
        if [entry.sha256 for entry in entries[: len(self._joined)]] != self._joined:
            self._union, self._joined = None, []
        for entry in entries[len(self._joined) :]:
            mask = read(entry).moved()
            if mask is not None:
                self._union = mask if self._union is None else self._union | mask
            self._joined.append(entry.sha256)
        return self._union
