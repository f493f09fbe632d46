"""The denoising loss against a slow plain computation."""

import pytest
import torch
from torch import Tensor

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import WeightOverrides, key_value_projections
from cns_lightning.diffusion.denoising import denoising_loss
from cns_lightning.diffusion.text import ConceptTokens, text_states

PROMPTS = ["a photo of a cat", "a red car", "a sketch of a boat"]
TIMESTEPS = torch.tensor([3, 400, 990])


def draws(base: BaseModel) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(3, *base.latent_shape, generator=generator) for _ in range(2))
    return first, second


def squared_error(base: BaseModel, sample: int) -> Tensor:
    """Computes one sample's squared error by the formulas of the diffusion process, shape (channels, height, width)."""
    latents, noise = (drawn[sample : sample + 1] for drawn in draws(base))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = torch.cumprod(1 - betas, 0)[TIMESTEPS[sample]]
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    states = text_states(base, [PROMPTS[sample]]).states
    with torch.no_grad():
        predicted = base.unet(noisy, TIMESTEPS[sample], encoder_hidden_states=states).sample
    target = {
        "epsilon": noise,
        "v_prediction": kept.sqrt() * noise - (1 - kept).sqrt() * latents,
        "sample": latents,
    }[base.noise_scheduler.config["prediction_type"]]
    return (predicted - target).square()[0]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_each_sample_has_its_own_loss(base: BaseModel, prediction_type: str) -> None:
    base.noise_scheduler.register_to_config(prediction_type=prediction_type)
    losses = denoising_loss(base, *draws(base), TIMESTEPS, text_states(base, PROMPTS))
    assert losses.shape == (3,)
    assert losses.dtype == torch.float32
    for sample in range(3):
        assert losses[sample].item() == pytest.approx(squared_error(base, sample).mean().item(), rel=1e-4)


def test_only_the_valid_region_counts(base: BaseModel) -> None:
    region = torch.zeros(3, 1, 8, 8)
    region[0] = 1
    region[1, :, 2:5, 1:7] = 1
    losses = denoising_loss(base, *draws(base), TIMESTEPS, text_states(base, PROMPTS), region)
    assert losses[0].item() == pytest.approx(squared_error(base, 0).mean().item(), rel=1e-4)
    assert losses[1].item() == pytest.approx(squared_error(base, 1)[:, 2:5, 1:7].mean().item(), rel=1e-4)
    assert losses[2].item() == 0
    with pytest.raises(ValueError, match="must be"):
        denoising_loss(base, *draws(base), TIMESTEPS, text_states(base, PROMPTS), region[:, 0])


def test_weights_multiply_errors_and_leave_their_number(base: BaseModel) -> None:
    region, weights = torch.zeros(3, 1, 8, 8), torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    region[:, :, 2:5, 1:7] = 1
    states = text_states(base, PROMPTS)
    losses = denoising_loss(base, *draws(base), TIMESTEPS, states, region, weights)
    for sample in range(3):
        expected = (squared_error(base, sample) * weights[sample])[:, 2:5, 1:7].mean().item()
        assert losses[sample].item() == pytest.approx(expected, rel=1e-4)
    plain = denoising_loss(base, *draws(base), TIMESTEPS, states, region)
    assert torch.equal(denoising_loss(base, *draws(base), TIMESTEPS, states, region, torch.ones(3, 1, 8, 8)), plain)
    with pytest.raises(ValueError, match="weights are"):
        denoising_loss(base, *draws(base), TIMESTEPS, states, region, weights[:, 0])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_what_is_masked_out_does_not_reach_the_gradient(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, prediction_type: str
) -> None:
    base.noise_scheduler.register_to_config(prediction_type=prediction_type)
    # A UNet that looks at no neighbours: what is left of the masked-out cells is what the loss lets through.
    factor = torch.tensor([0.3, -0.2, 0.1, 0.7]).reshape(1, 4, 1, 1).requires_grad_()
    monkeypatch.setattr(base.unet, "forward", lambda noisy, *_, **__: (factor * noisy,))
    weights = torch.ones(3, 1, 8, 8)
    weights[:, :, :, :5] = 0
    latents, noise = draws(base)
    found = []
    for shift in (0.0, 3.0):
        moved = torch.where(weights == 0, latents + shift, latents), torch.where(weights == 0, noise - shift, noise)
        losses = denoising_loss(base, *moved, TIMESTEPS, text_states(base, PROMPTS), torch.ones(3, 1, 8, 8), weights)
        found.append((losses, *torch.autograd.grad(losses.mean(), factor)))
    assert found[0][1].abs().min() > 0
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_xl_reads_pooled_text_and_picture_size(xl_base: BaseModel) -> None:
    latents, noise = draws(xl_base)
    states = text_states(xl_base, PROMPTS)
    losses = denoising_loss(xl_base, latents, noise, TIMESTEPS, states)
    sizes = torch.tensor([[32.0, 32, 0, 0, 32, 32]]).repeat(3, 1)
    noisy = xl_base.noise_scheduler.add_noise(latents, noise, TIMESTEPS)  # type: ignore[arg-type]
    with torch.no_grad():
        predicted = xl_base.unet(
            noisy,
            TIMESTEPS,
            encoder_hidden_states=states.states,
            added_cond_kwargs={"text_embeds": states.pooled, "time_ids": sizes},
        ).sample
    assert torch.allclose(losses, (predicted - noise).square().mean((1, 2, 3)), rtol=1e-5)


def test_half_precision_model_gives_float_losses(base: BaseModel) -> None:
    expected = denoising_loss(base, *draws(base), TIMESTEPS, text_states(base, PROMPTS))
    base.to(dtype=torch.bfloat16)
    losses = denoising_loss(base, *draws(base), TIMESTEPS, text_states(base, PROMPTS))
    assert losses.dtype == torch.float32
    assert torch.allclose(losses, expected, rtol=0.05)


def test_gradient_reaches_token_and_overridden_weights_only(xl_base: BaseModel) -> None:
    tokens = ConceptTokens(xl_base)
    tokens.add("<new1>")
    parameters = tokens.train("<new1>")
    projections = key_value_projections(xl_base.unet)
    trained = {name: each.weight.detach().clone().requires_grad_() for name, each in projections.items()}
    overrides = WeightOverrides(projections, detach_first_token=True)
    overrides.set(trained)
    xl_base.unet.enable_gradient_checkpointing()
    states = text_states(xl_base, ["a <new1> cat"] * 3, with_gradient=True)
    denoising_loss(xl_base, *draws(xl_base), TIMESTEPS, states).mean().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in (*parameters, *trained.values()))
    assert all(parameter.grad is None for parameter in xl_base.unet.parameters())
    overrides.remove()
