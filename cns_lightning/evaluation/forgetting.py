"""What a matrix of scores says about forgetting.

``matrix[t][i]`` is the score of concept i after stage t, for i <= t; rows grow by one entry each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Matrix = Sequence[Sequence[float]]


def forgetting_from_best(matrix: Matrix) -> float | None:
    """Returns how far the concepts fell from their best score, the mean over all but the last; None for one concept.

    Never negative by more than a later stage raised them: the best is taken over the stages before the last.
    Source: Chaudhry et al. (arXiv 1801.10112), section 3.
    """
    last = matrix[-1]
    falls = [max(row[i] for row in matrix[i:-1]) - last[i] for i in range(len(last) - 1)]
    return sum(falls) / len(falls) if falls else None


def forgetting_from_learned(matrix: Matrix) -> float | None:
    """Returns how far the concepts fell from their score right after their own stage; None for one concept."""
    last = matrix[-1]
    falls = [matrix[i][i] - last[i] for i in range(len(last) - 1)]
    return sum(falls) / len(falls) if falls else None


def backward_transfer(matrix: Matrix) -> float | None:
    """Returns the mean change of the concepts since their own stage; negative where they were forgotten.

    Source: Lopez-Paz and Ranzato (arXiv 1706.08840), Eq. 3.
    """
    fallen = forgetting_from_learned(matrix)
    return None if fallen is None else -fallen
