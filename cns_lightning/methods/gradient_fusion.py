"""Gradient fusion: one weight that treats what every concept's layer reads as the concept's own weight does.

    W = argmin over W of  sum over concepts i of  || (W_0 + dW_i) X_i - W X_i ||^2

Two ways to the same minimum: iterations on recorded features, as published, and a closed form on two streaming sums,
whose memory does not grow with the number of concepts.

Source: Mix-of-Show (arXiv 2305.18292) 3.3.2; docs/methods.md 5.5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

RIDGE = 3e-3
"""Of the closed form; docs/methods.md 5.5 has the measurement."""


class LayerFusion(ABC):
    """Gathers what a layer reads for each concept, and finds its fused weight.

    Args:
        weight: pretrained, shape (rows, columns), float32.
        device: device of the computation; that of the weight if not given.
    """

    def __init__(self, weight: Tensor, device: torch.device | None = None) -> None:
        self.weight = weight.detach()
        self.device = device or weight.device

    @abstractmethod
    def add(self, inputs: Tensor, delta: Tensor) -> None:
        """Takes in what a concept's layer read.

        Args:
            inputs: shape (places, columns), any float dtype and device.
            delta: change of the weight by the concept, shape (rows, columns), float32.
        """

    @abstractmethod
    def solve(self) -> Tensor:
        """Returns the fused weight, shape (rows, columns), float32, on the weight's device."""


class GramFusion(LayerFusion):
    """Closed form: W = W_0 + [sum dW_i G_i] [sum G_i + mu I]^-1 with G_i = X_i X_i^T; keeps two matrices.

    The minimum of the sum plus mu || W - W_0 ||^2. Without mu, directions that are hardly read decide: the minimum of
    several concepts may lie many times as far from W_0 as any concept does, and ruins all that was not recorded.

    Args:
        weight: pretrained, shape (rows, columns), float32.
        ridge: mu, as a share of the mean of the sum's diagonal. Below 1e-6 the rounding of single precision decides.
        device: device of the computation; that of the weight if not given.
    """

    def __init__(self, weight: Tensor, ridge: float = RIDGE, device: torch.device | None = None) -> None:
        super().__init__(weight, device)
        rows, columns = weight.shape
        self.ridge = ridge
        self.gram = torch.zeros(columns, columns, dtype=torch.float64, device=self.device)
        self.moved = torch.zeros(rows, columns, dtype=torch.float64, device=self.device)

    def add(self, inputs: Tensor, delta: Tensor) -> None:
        """Takes in what a concept's layer read."""
        inputs = inputs.to(self.device, torch.float64)
        gram = inputs.T @ inputs
        self.gram += gram
        self.moved += delta.to(self.device, torch.float64) @ gram

    def solve(self) -> Tensor:
        """Returns the fused weight."""
        size = (self.ridge * self.gram.diagonal().mean()).clamp_min(torch.finfo(torch.float64).tiny)
        regular = self.gram + size * torch.eye(len(self.gram), dtype=torch.float64, device=self.device)
        return self.weight + torch.linalg.solve(regular, self.moved.T).T.to(self.weight)


class IterativeFusion(LayerFusion):
    """As published: keeps all features, in main memory, and runs L-BFGS from the pretrained weight.

    Args:
        weight: pretrained, shape (rows, columns), float32.
        iterations: at most.
        device: device of the computation; that of the weight if not given.
    """

    def __init__(self, weight: Tensor, iterations: int, device: torch.device | None = None) -> None:
        super().__init__(weight, device)
        self.iterations = iterations
        self.inputs: list[Tensor] = []
        self.deltas: list[Tensor] = []

    def add(self, inputs: Tensor, delta: Tensor) -> None:
        """Takes in what a concept's layer read."""
        self.inputs.append(inputs.cpu())
        self.deltas.append(delta)

    @torch.enable_grad()
    def solve(self) -> Tensor:
        """Returns the best weight that was met."""
        start = self.weight.to(self.device)
        parts = [each.to(start) for each in self.inputs]
        targets = torch.cat(
            [functional.linear(part, start + delta.to(start)) for part, delta in zip(parts, self.deltas, strict=True)]
        )
        inputs = torch.cat(parts)
        weight = nn.Parameter(start.clone())
        best, least = start.clone(), torch.inf
        optimizer = torch.optim.LBFGS(
            [weight], lr=1, max_iter=self.iterations, history_size=25, line_search_fn="strong_wolfe",
            tolerance_grad=1e-16, tolerance_change=1e-16,
        )  # fmt: skip

        def closure() -> Tensor:
            nonlocal best, least
            optimizer.zero_grad()
            loss = functional.mse_loss(functional.linear(inputs, weight), targets)
            loss.backward()
            reached = float(loss.detach())
            if reached < least:
                best, least = weight.detach().clone(), reached
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]
        return best.to(self.weight)


@contextmanager
def recorded_inputs(projections: Mapping[str, nn.Linear], take: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Hands every input of projections to a function, while the context lasts.

    Args:
        projections: projections by name.
        take: called with the name and the input, shape (batch, places, columns).
    """
    hooks = [
        projection.register_forward_pre_hook(partial(_hand_over, take, name))
        for name, projection in projections.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hand_over(take: Callable[[str, Tensor], None], name: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    take(name, inputs[0])
