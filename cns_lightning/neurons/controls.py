"""Masks to compare a selection of concept neurons with: as many neurons, chosen by something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cns_lightning.determinism import generator
from cns_lightning.neurons.mask import NeuronMask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def random_neurons(mask: NeuronMask, *seeds: int) -> NeuronMask:
    """Draws a mask with as many neurons in every row as a given one; the control of the ablation.

    Args:
        mask: mask of matrices.
        *seeds: the same ones, such as seed of the run and number of the stage, draw the same neurons.

    Source: supplement 9.5 (random neurons of the same count); per row is our reading.
    """
    drawn = {}
    for name, bools in mask.bools().items():
        order = torch.rand(
            bools.shape, generator=generator(seeds[0], "random_neurons", *seeds[1:], name), dtype=torch.float64
        )
        ranks = order.argsort(1).argsort(1)
        drawn[name] = ranks < bools.sum(1, keepdim=True)
    return NeuronMask.from_bools(drawn)


def largest_neurons(mask: NeuronMask, scores: Mapping[str, Tensor]) -> NeuronMask:
    """Marks the largest scores of every matrix, as many as a given mask has there, ties by lower index.

    Args:
        mask: mask of matrices.
        scores: by name, of the matrices' shapes.

    Source: SHiRA (arXiv 2406.13175) 3.1, where the score is the weight's magnitude or that of its gradient; CNS scores
        by what a neuron adds to the concept's keys and values, and leaves out what it adds to everyone's.
    """
    found = {}
    for name, bools in mask.bools().items():
        order = scores[name].flatten().sort(descending=True, stable=True).indices
        chosen = torch.zeros(bools.numel(), dtype=torch.bool)
        chosen[order[: int(bools.sum())].cpu()] = True
        found[name] = chosen.view(bools.shape)
    return NeuronMask.from_bools(found)


def all_neurons(mask: NeuronMask) -> NeuronMask:
    """Marks every entry of the matrices of a mask."""
    return NeuronMask.from_bools({name: torch.ones(shape, dtype=torch.bool) for name, shape in mask.shapes.items()})
