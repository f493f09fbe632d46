import torch

from cns_lightning.miniature.architecture import LATENT_CHANNELS
from cns_lightning.miniature.training.latent_targets import PATCH, patch_components


def correlated_pictures(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.randn(count, 3, 20, 20, generator=generator)
    smooth = torch.nn.functional.interpolate(small, (64, 64), mode="bilinear")
    return smooth + 0.1 * torch.randn(count, 3, 64, 64, generator=generator)


def test_latents_are_uncorrelated_and_as_wide_as_the_root_of_the_singular_values() -> None:
    pixels = correlated_pictures(40)
    latents = patch_components(pixels).latents(pixels)
    assert latents.shape == (40, LATENT_CHANNELS, 16, 16)

    patches = pixels.reshape(40, 3, 16, PATCH, 16, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(40 * 256, -1).double()
    values = torch.linalg.svdvals(patches - patches.mean(0)) / len(patches) ** 0.5
    rows = latents.permute(0, 2, 3, 1).reshape(-1, LATENT_CHANNELS).double()
    covariance = rows.T @ rows / len(rows)
    torch.testing.assert_close(covariance, torch.diag(values[:LATENT_CHANNELS]), atol=1e-4, rtol=1e-3)


def test_nothing_keeps_more_of_a_picture_than_the_components_do() -> None:
    pixels = correlated_pictures(40)
    components = patch_components(pixels)
    flat = components.weight.flatten(1)
    patches = torch.nn.functional.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 48)
    centred = patches - patches.mean(0)

    def lost(basis: torch.Tensor) -> float:
        orthonormal, _ = torch.linalg.qr(basis.T)
        return float((centred - centred @ orthonormal @ orthonormal.T).square().mean())

    other = torch.randn(flat.shape, generator=torch.Generator().manual_seed(1))
    assert lost(flat) < lost(flat + 0.3 * other * flat.norm() / other.norm())
