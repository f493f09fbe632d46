"""A quadratic form of a sparse change of many matrices, computed on its entries alone.

What a change D of key and value weights does to the keys and values of given prompts is tr(D G D^T) with the Gram
matrix G of their text states. Of 768 columns a concept moves some forty in a row: two dense products of 24,960 x 768 x
768 at every step, forward and back, would mostly multiply zeros. Row by row it is d^T G' d with the columns of G that
the row moves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cns_lightning.methods.deltas import BufferList

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cns_lightning.neurons.mask import NeuronMask

GROWTH = 1.25
"""Rows are padded to the next power of this many entries, so that few products of one size serve all."""
BLOCK_BYTES = 2**30
"""What blocks may take. Those of Stable Diffusion 1.5 at 6 % take 0.3 GB; SDXL's would take 8 GB, and all entries of
Stable Diffusion 59: the longer rows are then multiplied as they stand, zeros and all."""
STRIP_BYTES = 2**26
"""What the rows that are multiplied as they stand may take at once."""


class QuadraticForm(nn.Module):
    """Computes tr((S + D) G (S + D)^T) + tr(D H D^T), summed over matrices, from the entries of a sparse D.

    What depends on the mask alone is worked out once. One pass over the blocks of ``G + H`` gives value and gradient.

    Args:
        mask: entries of D.
        gram: G, shape (columns, columns), float32.
        shift: S by parameter name, of the matrices' shapes, float32.
        own_gram: H, shape of ``gram``.

    Source: docs/methods.md 1.8, R3: G of the calibration prompts, whose keys and values shall stay the pretrained ones
    though earlier concepts have moved S; H of earlier concepts' prompts.
    """

    linear: Tensor
    constant: Tensor
    gram: Tensor

    def __init__(self, mask: NeuronMask, gram: Tensor, shift: Mapping[str, Tensor], own_gram: Tensor) -> None:
        super().__init__()
        device, linear, constant = gram.device, [], gram.new_zeros(())
        rows, columns, first = [], [], 0
        for name in mask.names:
            moved = shift[name].to(gram)
            image = moved @ gram
            constant = constant + (image * moved).sum()
            index = mask.indices(name).to(device)
            linear.append(image.flatten()[index])
            height, width = mask.shapes[name]
            rows.append(first + index.div(width, rounding_mode="floor"))
            columns.append(index % width)
            first += height
        # Buffers follow the module to its device and stay out of checkpoints: a stage makes them anew.
        self.register_buffer("linear", torch.cat(linear), persistent=False)
        self.register_buffer("constant", constant, persistent=False)
        self.register_buffer("gram", gram + own_gram, persistent=False)
        row, column = torch.cat(rows), torch.cat(columns)
        lengths = torch.bincount(row, minlength=first)
        self.places, self.blocks, longest = _blocks(lengths, column, self.gram)
        self.entries, self.spots = _strips(lengths, row, column, len(gram), longest)

    def forward(self, values: Tensor) -> Tensor:
        """Returns the form for the values of D's entries, shape (entries,), in the order of the mask; a scalar."""
        return _Evaluate.apply(values, self)

    def product(self, values: Tensor) -> Tensor:
        """Returns half of the form's gradient without what S adds: the entries of D (G + H)."""
        # One more place for the padding, which takes and gives nothing.
        padded = torch.cat([values, values.new_zeros(1)])
        found = torch.zeros_like(padded)
        # In single precision whatever the step computes in: changes are small beside what they are summed with.
        with torch.autocast(values.device.type, enabled=False):
            for places, blocks in zip(self.places, self.blocks, strict=True):
                # From the left: Gram matrices are symmetric, and a row times a matrix is three times as fast on a CPU.
                found[places] = torch.bmm(padded[places].unsqueeze(1), blocks).squeeze(1)
            for entries, spots in zip(self.entries, self.spots, strict=True):
                strip = self.gram.new_zeros(_strip_height(len(self.gram)) * len(self.gram))
                strip[spots] = values[entries]
                found[entries] = (strip.view(-1, len(self.gram)) @ self.gram).view(-1)[spots]
        return found[:-1]


def _blocks(lengths: Tensor, columns: Tensor, gram: Tensor) -> tuple[BufferList, BufferList, int]:
    """Cuts the columns that each row moves out of a Gram matrix, rows of about as many entries together, short first.

    Args:
        lengths: number of entries of each row.
        columns: column of each entry, row by row.
        gram: shape (columns, columns).

    Returns:
        For every group of rows, the places of their entries, shape (rows, longest), one past the last for padding; and
        their blocks, shape (rows, longest, longest), zero in the padding. And the length up to which rows have blocks.
    """
    count = len(columns)
    starts = lengths.cumsum(0) - lengths
    longest = int(lengths.max())
    powers = range(1 + math.ceil(math.log(max(longest, 1), GROWTH)))
    sizes = sorted({min(longest, math.ceil(GROWTH**power)) for power in powers})
    places, blocks, below, taken = [], [], 0, 0
    for size in sizes:
        own = ((lengths > below) & (lengths <= size)).nonzero().flatten()
        taken += len(own) * size**2 * gram.element_size()
        if taken > BLOCK_BYTES:
            break
        below = size
        if not len(own):
            continue
        offsets = torch.arange(size, device=gram.device)
        is_there = offsets < lengths[own, None]
        place = torch.where(is_there, starts[own, None] + offsets, count)
        column = torch.where(is_there, columns[place.clamp_max(count - 1)], 0)
        block = gram[column[:, :, None], column[:, None, :]]
        blocks.append(block.mul_(is_there[:, :, None] & is_there[:, None, :]))
        places.append(place)
    return BufferList(places), BufferList(blocks), below


def _strips(lengths: Tensor, rows: Tensor, columns: Tensor, width: int, longest: int) -> tuple[BufferList, BufferList]:
    """Lays the rows without blocks out as they stand, some at a time.

    Args:
        lengths: number of entries of each row.
        rows: row of each entry, ascending.
        columns: column of each entry.
        width: number of columns.
        longest: length up to which rows have blocks.

    Returns:
        For every strip of rows, their entries, and the places of these in the strip.
    """
    is_long = lengths > longest
    own = is_long[rows].nonzero().flatten()
    places = (is_long.cumsum(0) - 1)[rows[own]]
    height = _strip_height(width)
    # Rows ascend, and so do strips.
    counts = torch.bincount(places.div(height, rounding_mode="floor")).tolist()
    spots = places % height * width + columns[own]
    return BufferList(own.split(counts)), BufferList(spots.split(counts))


def _strip_height(width: int) -> int:
    return max(1, STRIP_BYTES // (4 * width))


class _Evaluate(torch.autograd.Function):
    """Computes value and gradient with one pass over the blocks; autograd would take two."""

    @staticmethod
    def forward(ctx, values: Tensor, form: QuadraticForm) -> Tensor:  # noqa: ANN001 - torch's context
        image = form.product(values) + form.linear
        ctx.save_for_backward(image)
        return torch.dot(values, image + form.linear) + form.constant

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001 - torch's context
        (image,) = ctx.saved_tensors
        return 2 * gradient * image, None
