"""Ways to move a weight matrix away from where it stands."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cns_lightning.determinism import generator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cns_lightning.neurons.mask import NeuronMask


class BufferList(nn.Module):
    """A list of tensors that follow a module to its device and stay out of checkpoints."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        for number, tensor in enumerate(tensors):
            self.register_buffer(str(number), tensor, persistent=False)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._buffers.values())  # type: ignore[arg-type]


class SparseDelta(nn.Module):
    """Moves the masked entries of many matrices by one flat vector.

    One vector for all matrices, not masked gradients of the matrices: the optimizer keeps two moments for about 5 % of
    the entries, ranks exchange one small buffer, and no weight decay or rounding can touch an entry outside the mask.

    Attributes:
        values: parameter, shape (masked entries,), float32, zero at the start; matrices in the order of the mask,
            entries by ascending flat index.
    """

    values: nn.Parameter
    index: Tensor
    own_index: Tensor
    origins: Tensor
    current: Tensor

    def __init__(self, weights: Mapping[str, Tensor], mask: NeuronMask, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.names = list(mask.names)
        indices = [mask.indices(name) for name in self.names]
        self.sizes = [len(part) for part in indices]
        self.shapes = [weights[name].shape for name in self.names]
        self.lengths = [shape.numel() for shape in self.shapes]
        starts = itertools.accumulate(self.lengths, initial=0)
        # Buffers, so that they follow the module to its device, but not into checkpoints: a stage makes them anew.
        # All matrices lie in one, in which every masked entry has its place: one operation writes them all.
        self.register_buffer("index", torch.cat([part + at for part, at in zip(indices, starts, strict=False)]), False)
        self.register_buffer("own_index", torch.cat(indices).int(), persistent=False)
        self.register_buffer("origins", gather_masked(weights, mask), persistent=False)
        whole = torch.cat([weights[name].detach().reshape(-1).float() for name in self.names])
        self.register_buffer("current", whole, persistent=False)
        self.values = nn.Parameter(torch.zeros(sum(self.sizes)))
        self.to(device)

    def weights(self) -> dict[str, Tensor]:
        """Returns every matrix with the values added, float32; the gradient flows to ``values`` alone.

        The matrices are written in place from call to call: use them before calling again.
        """
        moved = _ScatterAdd.apply(self.values, self)
        return dict(zip(self.names, moved, strict=True))

    @torch.no_grad()
    def times(self, right: Tensor) -> Tensor:
        """Returns the masked entries of the delta's matrices times a matrix, shape (masked entries,).

        Args:
            right: shape (columns, columns).
        """
        change = torch.zeros_like(self.current)
        change[self.index] = self.values
        return torch.cat([(matrix @ right).view(-1) for matrix in self.matrices(change)])[self.index]

    def matrices(self, flat: Tensor) -> list[Tensor]:
        """Returns the matrices that lie one behind the other in a vector."""
        return [part.view(shape) for part, shape in zip(flat.split(self.lengths), self.shapes, strict=True)]


class DenseDelta(nn.Module):
    """Moves all entries of many matrices by one flat vector, without an index: that of Stable Diffusion 1.5 has 153 MB.

    Attributes:
        values: parameter, shape (entries,), float32, zero at the start; matrices in the order of their names, entries
            by flat index, as a `SparseDelta` on everything has them.
    """

    values: nn.Parameter

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.names = sorted(weights)
        self.origins = BufferList([weights[name].detach().to(torch.float32, copy=True) for name in self.names])
        self.current = BufferList([origin.clone() for origin in self.origins])
        self.sizes = [origin.numel() for origin in self.origins]
        self.values = nn.Parameter(torch.zeros(sum(self.sizes)))
        self.to(device)

    def weights(self) -> dict[str, Tensor]:
        """Returns every matrix with the values added, float32; the gradient flows to ``values`` alone.

        The matrices are written in place from call to call: use them before calling again.
        """
        return dict(zip(self.names, _DenseAdd.apply(self.values, self), strict=True))


class LowRankDelta(nn.Module):
    """Moves matrices by products of two thin factors, ``up @ down``; zero at the start.

    Attributes:
        ups: parameters, each (rows, rank), zero at the start.
        downs: each (rank, columns): parameters, random at the start, or what was given.

    Args:
        weights: weights that the delta starts from, by parameter name.
        rank: rank of the products.
        seeds: random seeds of the run, and number of the stage.
        device: device of everything.
        bases: ``downs`` that stay as they are, by parameter name, float32.

    Source: LoRA (arXiv 2106.09685), section 4.1; the first values of ``downs`` as in its published code.
    """

    downs: nn.ParameterList | BufferList

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        rank: int,
        seeds: tuple[int, int],
        device: torch.device | str = "cpu",
        bases: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.names = sorted(weights)
        self.origins = BufferList([weights[name].detach().to(torch.float32, copy=True) for name in self.names])
        shapes = [weights[name].shape for name in self.names]
        self.ups = nn.ParameterList(torch.zeros(rows, rank) for rows, _ in shapes)
        if bases is not None:
            self.downs = BufferList([bases[name] for name in self.names])
        else:
            self.downs = nn.ParameterList(
                torch.empty(rank, columns).uniform_(
                    -(columns**-0.5), columns**-0.5, generator=generator(seeds[0], "low_rank", seeds[1], name)
                )
                for name, (_, columns) in zip(self.names, shapes, strict=True)
            )
        self.to(device)

    def products(self) -> list[Tensor]:
        """Returns what the matrices are moved by, in the order of ``names``."""
        return [up @ down for up, down in zip(self.ups, self.downs, strict=True)]

    def weights(self, products: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns every matrix with its product added, float32; the gradient flows to the factors."""
        moved = [origin + product for origin, product in zip(self.origins, products, strict=True)]
        return dict(zip(self.names, moved, strict=True))

    def rounded(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Returns the factors as they are stored, float16, on the CPU."""
        pairs = zip(self.names, self.ups, self.downs, strict=True)
        return {name: (up.detach().half().cpu(), down.detach().half().cpu()) for name, up, down in pairs}


class _ScatterAdd(torch.autograd.Function):
    """Writes origin + value into the masked entries; backward gathers the gradient of exactly these entries.

    Done by hand because the out-of-place operation would copy every matrix at every step, and the sum of one padded
    gradient per matrix would cost a pass over the whole vector per matrix.
    """

    @staticmethod
    def forward(ctx, values: Tensor, delta: SparseDelta) -> tuple[Tensor, ...]:  # noqa: ANN001 - torch's context
        ctx.delta = delta
        delta.current[delta.index] = delta.origins + values
        return tuple(delta.matrices(delta.current))

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor, None]:  # noqa: ANN001 - torch's context
        delta = ctx.delta
        gathered = torch.zeros_like(delta.values)
        places, parts = delta.own_index.split(delta.sizes), gathered.split(delta.sizes)
        # One by one: to put the gradients, one of every matrix, behind each other would cost a pass over all of them.
        for gradient, indices, part in zip(gradients, places, parts, strict=True):
            if gradient is not None:
                torch.index_select(gradient.reshape(-1).float(), 0, indices, out=part)
        return gathered, None


class _DenseAdd(torch.autograd.Function):
    """Writes origin + value into every entry; by hand for the reasons of `_ScatterAdd`."""

    @staticmethod
    def forward(ctx, values: Tensor, delta: DenseDelta) -> tuple[Tensor, ...]:  # noqa: ANN001 - torch's context
        ctx.delta = delta
        for matrix, origin, part in zip(delta.current, delta.origins, values.split(delta.sizes), strict=True):
            torch.add(origin, part.view_as(origin), out=matrix)
        return tuple(matrix.detach() for matrix in delta.current)

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor, None]:  # noqa: ANN001 - torch's context
        delta = ctx.delta
        gathered = torch.zeros_like(delta.values)
        for gradient, part in zip(gradients, gathered.split(delta.sizes), strict=True):
            if gradient is not None:
                part.copy_(gradient.reshape(-1))
        return gathered, None


def gather_masked(weights: Mapping[str, Tensor], mask: NeuronMask) -> Tensor:
    """Reads the masked entries of all matrices into one vector, shape (entries,), float32, in the mask's order."""
    parts = []
    for name in mask.names:
        flat = weights[name].detach().reshape(-1)
        parts.append(flat[mask.indices(name).to(flat.device)].float())
    return torch.cat(parts) if parts else torch.zeros(0)
