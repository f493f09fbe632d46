"""Custom Diffusion's merge of concepts that were fine-tuned one by one: a least-squares problem with a closed form.

Shapes: w features of a text state, d rows of a projection, m regularization states, s states of the concepts' words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

RTOL = 1e-8
"""Directions of the constraints that are smaller than this, relative to the largest, count as rounding."""


class ConstrainedMerge:
    """Finds the weights that treat other prompts as the pretrained ones do, and every concept's words as its own do.

    Minimizes ||(W - W_0) R^T||_F under W c = (W_0 + D_n) c for every state c of the words of concept n:

        A = R^T R,  P = C A^-1,  W = W_0 + [D_n C_n^T]_n (P C^T)^-1 P

    A, P and the inverse do not depend on the projection and are worked out once, in double precision.

    Args:
        regularization: text states R of captions that name no concept, shape (m, w).
        words: text states C_n of each concept's words, each (s_n, w).
        ridge: added to A's diagonal, as a share of its mean; makes fewer than w different captions enough.

    Source: Custom Diffusion (arXiv 2212.04488), section 3.3; docs/methods.md 4.5.
    """

    def __init__(self, regularization: Tensor, words: Sequence[Tensor], ridge: float = 1e-6) -> None:
        rows = regularization.double()
        gram = rows.T @ rows
        gram.diagonal().add_(ridge * gram.diagonal().mean())
        self.words = [each.double() for each in words]
        together = torch.cat(self.words)
        self.spread = torch.linalg.solve(gram, together.T).T
        # Where there are more states than directions, the constraints contradict each other by rounding alone: a plain
        # inverse would meet them with weights a million times too large.
        self.solution = torch.linalg.pinv(self.spread @ together.T, rtol=RTOL, hermitian=True) @ self.spread

    def merged(self, pretrained: Tensor, deltas: Sequence[Tensor]) -> Tensor:
        """Returns the merged weights of one projection.

        Args:
            pretrained: W_0, shape (d, w).
            deltas: D_n, what each concept's training moved it by, each (d, w).

        Returns:
            Shape (d, w), float32.
        """
        wanted = [delta.double() @ words.T for delta, words in zip(deltas, self.words, strict=True)]
        return (pretrained.double() + torch.cat(wanted, dim=1) @ self.solution).float()
