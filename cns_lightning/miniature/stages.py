"""The training stages of the base model of the miniature: autoencoder, text encoder, diffusion."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cns_lightning.miniature import architecture, world
from cns_lightning.miniature.latent_targets import PatchComponents, patch_components
from cns_lightning.miniature.picture_pool import PicturePool, open_pool, render_pool
from cns_lightning.miniature.training_loop import Schedule, TrainingLoop


@dataclass(frozen=True)
class Recipe:
    """Sizes of a whole training; the defaults are the CPU recipe.

    There is no switch for torch.compile: on a CPU, torch 2.13 compiled UNet and decoder to code that left nine tenths
    of the gradients at zero, without a word, and what was trained with it had learned colours but no shapes.

    Attributes:
        work: folder of pools, states and results.
        seed: of pictures, initial weights, order and noise.
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
    plain_pictures: int = 16_000
    autoencoder_steps: int = 2_800
    autoencoder_batch: int = 16
    text_steps: int = 800
    text_batch: int = 128
    plain_steps: int = 1_000
    diffusion_steps: int = 24_000
    diffusion_batch: int = 32
    judge_steps: int = 4_000
    judge_batch: int = 128

    def pool(self, kind: str) -> PicturePool:
        """Renders what is missing of a pool, ``free``, ``base``, ``wide`` or ``plain``, and opens it."""
        pictures: int = getattr(self, f"{kind}_pictures")
        render_pool(self.work / kind, pictures, kind, self.seed, self.processes)
        return open_pool(self.work / kind, pictures)


SHARES = {"plain": 0.25, "base": 0.3, "wide": 0.45}
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
    """Gives what the encoder aims at, found on the first pictures of the free world."""
    pixels = torch.from_numpy(recipe.pool("free").pixels[:4000]).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    return patch_components(pixels)


def pool_latents(recipe: Recipe, pool: PicturePool, components: PatchComponents) -> Tensor:
    """Gives what the encoder aims at for a whole pool, unscaled, shape (pictures, 16, 16, 16), float16."""
    parts = []
    for start in range(0, len(pool.captions), 500):
        pixels = torch.from_numpy(pool.pixels[start : start + 500]).to(recipe.device)
        parts.append(components.latents(pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)).half().cpu())
    return torch.cat(parts)


def sprinkle_rare_words(caption: str, numbers: random.Random) -> str:
    """Puts a word without meaning before a noun now and then, or drops the caption for classifier-free guidance."""
    if numbers.random() < 0.1:
        return ""
    words = caption.split()
    nouns = [index for index, word in enumerate(words) if word in world.KINDS or word in ("scene", "style")]
    if nouns and numbers.random() < 0.15:
        words.insert(numbers.choice(nouns), numbers.choice(architecture.RARE_WORDS))
    return " ".join(words)


def timestep_probabilities(alphas_cumprod: Tensor, most: float = 5.0, uniform: float = 0.4) -> Tensor:
    """Gives how often each timestep is drawn: as min-SNR weighting would weigh it, with a uniform share.

    A small model trained on all timesteps alike spends itself on the last details of nearly clean latents and learns
    no shapes. Drawing by the weights instead of multiplying by them wastes no sample on a timestep of little weight;
    the uniform share keeps the noisiest ones, where the layout is decided, from starving.

    Args:
        alphas_cumprod: of the noise schedule, shape (timesteps,).
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
    captions = [caption for kind in SHARES for caption in recipe.pool(kind).captions]
    module: Any = _Namer(architecture.build_text_encoder(tokenizer), len(tokenizer)).to(recipe.device).train()
    schedule = Schedule(recipe.text_steps, 1e-3, warmup=50, decay_share=0.3, averaging=0.98)
    loop = TrainingLoop("text encoder", module, recipe.work / "text", schedule)

    def loss_at(step: int) -> Tensor:
        numbers = random.Random(f"{recipe.seed}/text/{step}")
        drawn = [sprinkle_rare_words(numbers.choice(captions), numbers) for _ in range(recipe.text_batch)]
        tokens = tokenize(tokenizer, drawn).to(recipe.device)
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


def tokenize(tokenizer: Any, captions: list[str]) -> Tensor:
    """Gives token ids, shape (captions, prompt length)."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def train_diffusion(recipe: Recipe, text_encoder: Any, tokenizer: Any, noise_scheduler: Any) -> tuple[Any, float]:
    """Trains the UNet on the latents the encoder aims at; returns it with averaged weights, and the scaling factor.

    It sees nothing but the plain scene at first and in a quarter of the batches' places afterwards: a scene's chances
    are most of a picture's variance, and what a kind looks like drowned in them.
    """
    torch.manual_seed(recipe.seed + 1)
    components, pools = target_components(recipe), {kind: recipe.pool(kind) for kind in SHARES}
    latents = {kind: pool_latents(recipe, pool, components) for kind, pool in pools.items()}
    scaling_factor = 1 / float(latents["base"][:5000].float().std())
    model: Any = architecture.build_unet()
    model.to(recipe.device).train()
    probabilities = timestep_probabilities(noise_scheduler.alphas_cumprod)
    schedule = Schedule(recipe.diffusion_steps, 1e-3, warmup=100, decay_share=0.25, averaging=0.9985)
    loop = TrainingLoop("diffusion", model, recipe.work / "diffusion", schedule, save_every=500)

    def draw(kind: str, count: int, numbers: random.Random) -> tuple[Tensor, list[str]]:
        captions = pools[kind].captions
        indices = [numbers.randrange(len(captions)) for _ in range(count)]
        return latents[kind][indices], [sprinkle_rare_words(captions[index], numbers) for index in indices]

    def loss_at(step: int) -> Tensor:
        numbers, size = random.Random(f"{recipe.seed}/diffusion/{step}"), recipe.diffusion_batch
        counts = {"plain": size} if step < recipe.plain_steps else places_of_pools(size)
        drawn = [draw(kind, count, numbers) for kind, count in counts.items()]
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_000 + step)
        clean = torch.cat([part for part, _ in drawn]).float() * scaling_factor
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.multinomial(probabilities, size, replacement=True, generator=generator)
        noisy = noise_scheduler.add_noise(clean, noise, timesteps)
        target = noise_scheduler.get_velocity(clean, noise, timesteps)
        with loop.autocast():
            with torch.no_grad():
                tokens = tokenize(tokenizer, [caption for _, captions in drawn for caption in captions])
                states = text_encoder(tokens.to(recipe.device)).last_hidden_state
            velocity = model(noisy.to(recipe.device), timesteps.to(recipe.device), states).sample
        return functional.mse_loss(velocity.float(), target.to(recipe.device))

    loop.run(loss_at)
    loop.load_averages()
    return model.eval(), scaling_factor
