"""The training stages of the base model of the miniature: autoencoder, text encoder, diffusion."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cns_lightning.miniature import architecture
from cns_lightning.miniature.training.caption_tokens import CaptionTokens
from cns_lightning.miniature.training.latent_targets import PatchComponents, patch_components
from cns_lightning.miniature.training.loop import Schedule, TrainingLoop
from cns_lightning.miniature.training.picture_pool import PicturePool, open_pool, render_pool
from cns_lightning.storage import fingerprint, read_tensors, write_tensors


@dataclass(frozen=True)
class Recipe:
    """Sizes of a whole training; the defaults are the CPU recipe.

    Attributes:
        work: folder of pools, states and results.
        seed: random seed of pictures, initial weights, order and noise.
        device: ``cpu`` or ``cuda``.
        processes: renderers side by side.
    """

    work: Path
    seed: int = 0
    device: str = "cpu"
    processes: int = 2
    free_pictures: int = 30_000
    base_pictures: int = 50_000
    wide_pictures: int = 80_000
    parts_pictures: int = 40_000
    plain_pictures: int = 16_000
    autoencoder_steps: int = 2_800
    autoencoder_batch: int = 16
    text_steps: int = 800
    text_batch: int = 128
    plain_steps: int = 1_000
    diffusion_steps: int = 32_000
    diffusion_batch: int = 32
    save_every: int = 500
    judge_steps: int = 4_000
    judge_batch: int = 128

    def pool(self, kind: str) -> PicturePool:
        """Renders what is missing of a pool, ``free``, ``base``, ``wide``, ``parts`` or ``plain``, and opens it."""
        pictures: int = getattr(self, f"{kind}_pictures")
        render_pool(self.work / kind, pictures, kind, self.seed, self.processes)
        return open_pool(self.work / kind, pictures)

    def generator(self, step: int) -> torch.Generator:
        """Returns the random numbers of a step, on the device of the training."""
        return torch.Generator(self.device).manual_seed(self.seed * 1_000_000 + step)


SHARES = {"plain": 0.125, "base": 0.25, "parts": 0.375, "wide": 0.25}
"""Of a batch of the diffusion's training, by pool."""


def places_of_pools(size: int) -> dict[str, int]:
    """Returns how many pictures of a batch come from each pool, by `SHARES`; what is left over from the last one."""
    counts = {kind: int(share * size) for kind, share in SHARES.items()}
    return counts | {"wide": counts["wide"] + size - sum(counts.values())}


def picture_batch(pool: PicturePool, size: int, recipe: Recipe, stage: str, step: int) -> tuple[Tensor, list[int]]:
    """Draws a batch, a function of the step: pixels in [-1, 1], shape (size, 3, 64, 64), and the indices drawn."""
    numbers = random.Random(f"{recipe.seed}/{stage}/{step}")
    indices = [numbers.randrange(len(pool.captions)) for _ in range(size)]
    pixels = torch.from_numpy(pool.pixels[indices]).to(recipe.device)
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1), indices


def _slopes(pixels: Tensor) -> Tensor:
    across = pixels[..., 1:, :-1] - pixels[..., :-1, :-1]
    down = pixels[..., :-1, 1:] - pixels[..., :-1, :-1]
    return torch.cat([across, down], 1)


def train_autoencoder(recipe: Recipe) -> Any:
    """Trains the autoencoder on pictures far more varied than captions can name, and returns its averaged weights.

    The encoder learns to give the components of patches, the decoder to make the best of what they leave out. The loss
    is the squared and the absolute error of pixels, the absolute error of their slopes (thin stripes and outlines would
    else be the cheapest thing to lose), the latents' distance from the components and a light pull of them to the unit
    normal.
    """
    torch.manual_seed(recipe.seed)
    free = recipe.pool("free")
    components = target_components(recipe)
    model: Any = architecture.build_autoencoder()
    model.to(recipe.device, memory_format=torch.channels_last)
    schedule = Schedule(recipe.autoencoder_steps, 2e-3, warmup=100, decay_share=0.5, averaging=0.995)
    loop = TrainingLoop("autoencoder", model, recipe.work / "autoencoder", schedule)

    def loss_at(step: int) -> Tensor:
        pixels, _ = picture_batch(free, recipe.autoencoder_batch, recipe, "autoencoder", step)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with loop.autocast():
            moments = model.quant_conv(model.encoder(pixels)).float()
            mean, log_variance = moments.chunk(2, 1)
            log_variance = log_variance.clamp(-30, 20)
            noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(step)).to(pixels.device)
            copy = model.decoder(model.post_quant_conv(mean + (log_variance / 2).exp() * noise)).float()
        error = copy - pixels
        fidelity = 5 * error.square().mean() + error.abs().mean() + (_slopes(copy) - _slopes(pixels)).abs().mean()
        distance = (mean - components.latents(pixels)).square().mean()
        pull = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        return fidelity + distance + 2e-4 * pull

    loop.run(loss_at)
    loop.load_averages()
    return model.eval()


def target_components(recipe: Recipe) -> PatchComponents:
    """Returns what the encoder aims at, found on the first pictures of the free world."""
    free = replace(recipe, free_pictures=4000).pool("free")
    pixels = torch.from_numpy(free.pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return patch_components(pixels)


def pool_latents(recipe: Recipe, kind: str, autoencoder: Any) -> Tensor:
    """Returns the latents of a whole pool, unscaled, shape (pictures, 16, 16, 16), float16; kept beside its pictures.

    They come from the very encoder that is shipped. What it was taught to aim at looks alike and is not: the signs and
    the order of principal components are those of one pool, and a UNet trained on those of another pool exchanged blue
    and yellow in every picture.
    """
    pool, encoder = recipe.pool(kind), fingerprint(autoencoder.state_dict())
    path = recipe.work / f"{kind}-latents.safetensors"
    if path.exists():
        tensors, facts = read_tensors(path)
        if facts == {"encoder": encoder, "pictures": str(len(pool.captions))}:
            return tensors["latents"].to(recipe.device)
    parts = []
    for start in range(0, len(pool.captions), 200):
        pixels = torch.from_numpy(pool.pixels[start : start + 200]).to(recipe.device)
        pixels = pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            parts.append(autoencoder.encode(pixels).latent_dist.mean.half().contiguous())
    latents = torch.cat(parts)
    write_tensors(path, {"latents": latents.cpu()}, {"encoder": encoder, "pictures": str(len(pool.captions))})
    return latents


def timestep_probabilities(alphas_cumprod: Tensor, most: float = 5.0, uniform: float = 0.4) -> Tensor:
    """Returns how often each timestep is drawn: as min-SNR weighting would weigh it, with a uniform share.

    A small model trained on all timesteps alike spends itself on the last details of nearly clean latents and learns
    no shapes. Drawing by the weights instead of multiplying by them wastes no sample on a timestep of little weight;
    the uniform share keeps the noisiest ones, where the layout is decided, from starving.

    Args:
        alphas_cumprod: cumulative products of alpha of the noise schedule, shape (timesteps,).
        most: the signal-to-noise ratio above which a timestep gains no more weight.
        uniform: share of the draws that ignores the weights.

    Source: min-SNR weighting (arXiv 2303.09556), for v-prediction.
    """
    ratio = alphas_cumprod / (1 - alphas_cumprod)
    weights = ratio.clamp_max(most) / (ratio + 1)
    return (1 - uniform) * weights / weights.sum() + uniform / len(weights)


class _Namer(nn.Module):
    """A text encoder and a layer that reads words out of its states."""

    def __init__(self, text_encoder: nn.Module, words: int) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.head = nn.Linear(architecture.TEXT_WIDTH, words)


def train_text_encoder(recipe: Recipe, tokenizer: Any) -> Any:
    """Teaches the text encoder alone to name, from the state at each place, every word said so far.

    Stable Diffusion's text encoder comes from CLIP and says the whole sentence in every padding token; the denoiser
    finds it there before its attention has learned to look anywhere. Trained together from nothing, denoiser and text
    encoder learned scenes and colours, but no kinds in 17,000 steps.
    """
    torch.manual_seed(recipe.seed + 3)
    module: Any = _Namer(architecture.build_text_encoder(tokenizer), len(tokenizer)).to(recipe.device).train()
    schedule = Schedule(recipe.text_steps, 1e-3, warmup=50, decay_share=0.3, averaging=0.98)
    loop = TrainingLoop("text encoder", module, recipe.work / "text", schedule)

    captions = CaptionTokens.of(
        [caption for kind in SHARES for caption in recipe.pool(kind).captions], tokenizer, recipe.device
    )

    def loss_at(step: int) -> Tensor:
        generator = recipe.generator(step)
        places = (recipe.text_batch,)
        indices = torch.randint(len(captions.ids), places, generator=generator, device=recipe.device)
        tokens = captions.sprinkled(indices, generator)
        said = functional.one_hot(tokens, len(tokenizer)).cumsum(1).clamp_max(1).float()
        said[:, :, [tokenizer.bos_token_id, tokenizer.eos_token_id]] = 0
        with loop.autocast():
            named = module.head(module.text_encoder(tokens).last_hidden_state).float()
        return functional.binary_cross_entropy_with_logits(named, said, reduction="none").sum(-1).mean()

    loop.run(loss_at)
    loop.load_averages()
    # Larger states reach a fresh denoiser faster: the loss for a wrong colour rose 1.4 times as much in 300 steps.
    with torch.no_grad():
        module.text_encoder.final_layer_norm.weight.mul_(3)
        module.text_encoder.final_layer_norm.bias.mul_(3)
    return module.text_encoder.eval().requires_grad_(False)


def train_diffusion(
    recipe: Recipe, autoencoder: Any, text_encoder: Any, tokenizer: Any, noise_scheduler: Any
) -> tuple[Any, float]:
    """Trains the UNet on the autoencoder's latents; returns it with averaged weights, and the scaling factor.

    It sees nothing but the plain scene at first and in a quarter of the batches' places afterwards: a scene's chances
    are most of a picture's variance, and what a kind looks like drowned in them.
    """
    torch.manual_seed(recipe.seed + 1)
    autoencoder.to(recipe.device, memory_format=torch.channels_last)
    pools = {kind: recipe.pool(kind) for kind in SHARES}
    latents = {kind: pool_latents(recipe, kind, autoencoder) for kind in pools}
    scaling_factor = 1 / float(latents["base"][:5000].float().std())
    model: Any = architecture.build_unet()
    model.to(recipe.device).train()
    probabilities = timestep_probabilities(noise_scheduler.alphas_cumprod).to(recipe.device)
    schedule = Schedule(recipe.diffusion_steps, 1e-3, warmup=100, decay_share=0.25, averaging=0.9985)
    loop = TrainingLoop("diffusion", model, recipe.work / "diffusion", schedule, recipe.save_every)

    captions = CaptionTokens.of([each for pool in pools.values() for each in pool.captions], tokenizer, recipe.device)
    pictures = torch.cat([latents.pop(kind) for kind in pools])
    places: dict[str, tuple[int, int]] = {}
    first = 0
    for kind, pool in pools.items():
        places[kind] = (first, first + len(pool.captions))
        first += len(pool.captions)

    def loss_at(step: int) -> Tensor:
        generator, size, device = recipe.generator(step), recipe.diffusion_batch, recipe.device
        counts = {"plain": size} if step < recipe.plain_steps else places_of_pools(size)
        parts = [
            torch.randint(low, high, (counts[kind],), generator=generator, device=device)
            for kind, (low, high) in places.items()
            if kind in counts
        ]
        indices = torch.cat(parts)
        clean = pictures[indices].float() * scaling_factor
        noise = torch.randn(clean.shape, generator=generator, device=device)
        timesteps = torch.multinomial(probabilities, size, replacement=True, generator=generator)
        noisy = noise_scheduler.add_noise(clean, noise, timesteps)
        target = noise_scheduler.get_velocity(clean, noise, timesteps)
        with loop.autocast():
            with torch.no_grad():
                states = text_encoder(captions.sprinkled(indices, generator)).last_hidden_state
            velocity = loop.fast(model)(noisy, timesteps, states).sample
        return functional.mse_loss(velocity.float(), target)

    loop.run(loss_at)
    loop.load_averages()
    return model.eval(), scaling_factor
