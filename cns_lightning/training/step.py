"""One training step's way forward: from a batch to its losses. `compiled_step` has a faster one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cns_lightning.diffusion.denoising import denoising_loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.diffusion.cross_attention import WeightOverrides
    from cns_lightning.methods.base import Method


@dataclass(frozen=True)
class StepLosses:
    """What a batch costs.

    Attributes:
        losses: denoising loss of every picture, shape (batch,).
        penalty: what the method adds, a scalar, or None.
        prior: denoising loss of pictures of the class, a scalar that counts ``prior_weight`` times per picture of the
            concept, or None where there are none.
    """

    losses: Tensor
    penalty: Tensor | None
    prior: Tensor | None

    def total(self) -> Tensor:
        """Returns the loss that is differentiated, a scalar."""
        loss = self.losses.mean()
        if self.prior is not None:
            loss = loss + self.prior
        return loss if self.penalty is None else loss + self.penalty


class PlainStep:
    """Runs method and UNet as they are, operation by operation.

    Attributes:
        unet, prior_unet: what predicts from noisy latents, and from those of pictures of the class.

    Args:
        base: base model.
        method: method of the run, whose stage has started.
        overrides: weights that stand in for those of the model's projections.
    """

    def __init__(self, base: BaseModel, method: Method, overrides: WeightOverrides) -> None:
        self.base, self.method, self.overrides = base, method, overrides
        self.unet: Callable[..., Any] = base.unet
        self.prior_unet: Callable[..., Any] = base.unet

    def __call__(self, batch: dict[str, Any]) -> StepLosses:
        """Returns the losses of a batch of the data module."""
        self.overrides.set(self.method.trained_weights())  # first: a method may move the text encoder as well
        states = self.method.text_states(list(batch["prompt"]))
        losses = denoising_loss(
            self.base,
            batch["latents"],
            batch["noise"],
            batch["timestep"],
            states,
            batch["valid_region"],
            batch.get("weights"),
            self.unet,
        )
        penalty, prior = self.method.penalty(), None
        if self.method.prior_weight and "prior_latents" in batch:
            prior = self.method.prior_weight / batch["latents"].shape[1] * self._prior_loss(batch)
        return StepLosses(losses, penalty, prior)

    def _prior_loss(self, batch: dict[str, Any]) -> Tensor:
        states = self.method.text_states(list(batch["prior_prompt"]))
        latents, noise, timesteps = (batch[f"prior_{name}"] for name in ("latents", "noise", "timestep"))
        return denoising_loss(self.base, latents, noise, timesteps, states, unet=self.prior_unet).mean()
