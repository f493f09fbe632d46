"""How much a weight entry matters for a text: its size times the activity of its input.

Key and value projections of cross-attention read the text states themselves, the same at every layer and timestep, so
one vector of feature norms per set of prompts serves all of them and no pass of the UNet is needed
(docs/methods.md 1.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor


def text_feature_norms(
    states: Tensor, positions: Literal["all"] | Tensor = "all", normalize_tokens: bool = False
) -> Tensor:
    """Returns the L2 norm of every feature over the tokens of all prompts.

    Args:
        states: output of the text encoders, shape (prompts, tokens, width), any float dtype.
        positions: tokens that count, shape (prompts, tokens), bool; ``all`` counts every one.
        normalize_tokens: give every token unit length first, so that no token outweighs the others.

    Returns:
        Shape (width,), float32, non-negative, on the device of ``states``; zero where no token counts.

    Raises:
        ValueError: if the shapes do not fit.

    Source: CNS (arXiv 2510.02296) Eq. 3, reconstructed after Wanda; docs/methods.md 1.2, 1.4.
    """
    if states.dim() != 3:
        raise ValueError(f"text states need shape (prompts, tokens, width), not {tuple(states.shape)}")
    # In double precision, so that the order of summation shows in no rank.
    rows = states.detach().double()
    if normalize_tokens:
        rows = torch.nn.functional.normalize(rows, dim=-1)
    if not isinstance(positions, str):
        if positions.shape != states.shape[:2]:
            raise ValueError(f"positions have shape {tuple(positions.shape)}, the states {tuple(states.shape)}")
        # Not a product with zero: a state that does not count may be infinite.
        rows = rows[positions.to(rows.device)]
    return rows.reshape(-1, states.shape[-1]).square().sum(0).sqrt().float()


def pooled_feature_norms(prompt_norms: Tensor) -> Tensor:
    """Pools the norms of single prompts: the root of their mean square, shape (width,), float32.

    Args:
        prompt_norms: shape (prompts, width).
    """
    return prompt_norms.double().square().mean(0).sqrt().float()


def importance_scores(weight: Tensor, feature_norms: Tensor) -> Tensor:
    """Scores every neuron by the size of its weight times the activity of its input.

    Scores are comparable within a row only; their scale is arbitrary.

    Args:
        weight: key or value projection, shape (rows, columns), any float dtype.
        feature_norms: L2 norm of every input feature over prompts and tokens, shape (columns,), float32.

    Returns:
        Shape (rows, columns), float32, non-negative, on the device of ``weight``.

    Raises:
        ValueError: if ``feature_norms`` has not one entry per column.

    Source: CNS (arXiv 2510.02296) Eq. 3, reconstructed as Wanda's score; docs/methods.md 1.2.
    """
    if feature_norms.shape != weight.shape[1:]:
        raise ValueError(f"{tuple(feature_norms.shape)} norms for a weight of shape {tuple(weight.shape)}")
    return weight.detach().float().abs() * feature_norms.to(weight.device, torch.float32)
