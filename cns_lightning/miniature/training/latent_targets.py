"""What the miniature's latents should be: the leading principal components of small patches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cns_lightning.miniature.architecture import LATENT_CHANNELS, LATENT_SIZE, PICTURE_SIZE

PATCH = PICTURE_SIZE // LATENT_SIZE


@dataclass(frozen=True)
class PatchComponents:
    """A linear map from every 4x4 patch of a picture to its latent.

    Attributes:
        weight: shape (16, 3, 4, 4), float32; one principal component of patches each, largest variance first.
        bias: shape (16,), float32; it centres the components.
    """

    weight: Tensor
    bias: Tensor

    def latents(self, pixels: Tensor) -> Tensor:
        """Returns the latents of pictures, (pictures, 3, 64, 64) in [-1, 1] to (pictures, 16, 16, 16)."""
        return functional.conv2d(pixels, self.weight.to(pixels), self.bias.to(pixels), stride=PATCH)


def patch_components(pixels: Tensor) -> PatchComponents:
    """Finds the components and scales each to the square root of its standard deviation.

    An autoencoder left to itself spreads a picture evenly over its latent channels, and a denoiser then works on fine
    detail as hard as on shapes. Principal components keep the spectrum of pictures: the first three are little more
    than a 16x16 thumbnail, which holds most of the variance and is learned first. The square root keeps the last ones
    from drowning in the noise of the earliest timesteps.

    Args:
        pixels: pictures in [-1, 1], shape (pictures, 3, 64, 64); some thousands are enough.
    """
    patches = functional.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH).double()
    mean = patches.mean(0)
    centred = patches - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    leading = vectors.flip(1)[:, :LATENT_CHANNELS] / variances.flip(0)[:LATENT_CHANNELS] ** 0.25
    # Eigenvectors have no sign of their own; the largest entry of each counts as positive.
    largest = leading.gather(0, leading.abs().argmax(0, keepdim=True))
    leading = leading * largest.sign()
    weight = leading.T.reshape(LATENT_CHANNELS, 3, PATCH, PATCH)
    return PatchComponents(weight.float(), (-mean @ leading).float())
