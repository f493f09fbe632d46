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
        self.places, self.blocks = _blocks(torch.cat(rows), torch.cat(columns), first, gram + own_gram)

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
        return found[:-1]


def _blocks(rows: Tensor, columns: Tensor, count: int, gram: Tensor) -> tuple[BufferList, BufferList]:
    """Cuts the columns that each row moves out of a Gram matrix, rows of about as many entries together.

    Args:
        rows: row of each entry, ascending.
        columns: column of each entry.
        count: number of rows.
        gram: shape (columns, columns).

    Returns:
        For every group of rows, the places of their entries, shape (rows, longest), one past the last for padding; and
        their blocks, shape (rows, longest, longest), zero in the padding.
    """
    lengths = torch.bincount(rows, minlength=count)
    starts = lengths.cumsum(0) - lengths
    longest = int(lengths.max())
    powers = range(1 + math.ceil(math.log(max(longest, 1), GROWTH)))
    sizes = sorted({min(longest, math.ceil(GROWTH**power)) for power in powers})
    places, blocks, below = [], [], 0
    for size in sizes:
        own = ((lengths > below) & (lengths <= size)).nonzero().flatten()
        below = size
        if not len(own):
            continue
        offsets = torch.arange(size, device=rows.device)
        is_there = offsets < lengths[own, None]
        place = torch.where(is_there, starts[own, None] + offsets, len(rows))
        column = torch.where(is_there, columns[place.clamp_max(len(rows) - 1)], 0)
        block = gram[column[:, :, None], column[:, None, :]]
        blocks.append(block * (is_there[:, :, None] & is_there[:, None, :]))
        places.append(place)
    return BufferList(places), BufferList(blocks)


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
