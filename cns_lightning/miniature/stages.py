"""The three training stages of the miniature: autoencoder, diffusion, judge."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cns_lightning.miniature import architecture, world
from cns_lightning.miniature.picture_pool import PicturePool, open_pool, render_pool
from cns_lightning.miniature.training_loop import Schedule, TrainingLoop
from cns_lightning.storage import read_tensors, write_tensors


@dataclass(frozen=True)
class Recipe:
    """Sizes of a whole training; the defaults are the CPU recipe.

    Attributes:
        work: folder of pools, states and results.
        seed: of pictures, initial weights, order and noise.
        device: ``cpu`` or ``cuda``.
        processes: renderers side by side.
        compiled: whether UNet and decoder go through torch.compile; a quarter faster, needs a C++ compiler.
    """

    work: Path
    seed: int = 0
    device: str = "cpu"
    processes: int = 2
    compiled: bool = False
    free_pictures: int = 40_000
    base_pictures: int = 60_000
    autoencoder_steps: int = 5_500
    autoencoder_batch: int = 16
    decoder_steps: int = 3_000
    diffusion_steps: int = 17_600
    diffusion_batch: int = 32
    judge_steps: int = 4_000
    judge_batch: int = 256

    def pool(self, free: bool) -> PicturePool:
        """Renders what is missing of a pool and opens it."""
        pictures = self.free_pictures if free else self.base_pictures
        folder = self.work / ("free" if free else "base")
        render_pool(folder, pictures, free, self.seed, self.processes)
        return open_pool(folder, pictures)

    def autocast(self) -> torch.autocast:
        """Gives the mixed precision of the training, bfloat16 on every device."""
        return torch.autocast(self.device, torch.bfloat16)


def picture_batch(pool: PicturePool, size: int, recipe: Recipe, stage: str, step: int) -> tuple[Tensor, list[int]]:
    """Draws a batch, a function of the step: pixels in [-1, 1], shape (size, 3, 64, 64), and the indices drawn."""
    numbers = random.Random(f"{recipe.seed}/{stage}/{step}")
    indices = [numbers.randrange(len(pool.captions)) for _ in range(size)]
    pixels = torch.from_numpy(pool.pixels[indices]).to(recipe.device)
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1), indices


def _mixed_batch(
    free: PicturePool, base: PicturePool, recipe: Recipe, size: int, stage: str, step: int
) -> tuple[Tensor, list[str]]:
    pixels_free, indices_free = picture_batch(free, size - size // 4, recipe, f"{stage}/free", step)
    pixels_base, indices_base = picture_batch(base, size // 4, recipe, f"{stage}/base", step)
    captions = [free.captions[index] for index in indices_free] + [base.captions[index] for index in indices_base]
    return torch.cat([pixels_free, pixels_base]), captions


def _slopes(pixels: Tensor) -> Tensor:
    across = pixels[..., 1:, :-1] - pixels[..., :-1, :-1]
    down = pixels[..., :-1, 1:] - pixels[..., :-1, :-1]
    return torch.cat([across, down], 1)


def train_autoencoder(recipe: Recipe) -> Any:
    """Trains the autoencoder on pictures far more varied than captions can name, and returns its averaged weights.

    The loss is the squared and the absolute error of pixels, the absolute error of their slopes (thin stripes and
    outlines would else be the cheapest thing to lose) and a light pull of the latents to the unit normal.
    """
    torch.manual_seed(recipe.seed)
    free = recipe.pool(free=True)
    model: Any = architecture.build_autoencoder()
    model.to(recipe.device, memory_format=torch.channels_last)
    schedule = Schedule(recipe.autoencoder_steps, 1.5e-3, warmup=100, decay_share=0.4, averaging=0.995)
    loop = TrainingLoop("autoencoder", model, recipe.work / "autoencoder", schedule)

    def loss_at(step: int) -> Tensor:
        pixels, _ = picture_batch(free, recipe.autoencoder_batch, recipe, "autoencoder", step)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with recipe.autocast():
            posterior = model.encode(pixels).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step)).to(pixels.device)
            copy = model.decode(posterior.mean + posterior.std * noise).sample.float()
        error = copy - pixels
        fidelity = 5 * error.square().mean() + error.abs().mean() + (_slopes(copy) - _slopes(pixels)).abs().mean()
        return fidelity + 2e-4 * posterior.kl().float().mean() / posterior.mean[0].numel()

    loop.run(loss_at)
    loop.load_averages()
    train_decoder(recipe, model, free)
    return model.eval()


def train_decoder(recipe: Recipe, model: Any, free: PicturePool) -> None:
    """Trains the decoder on alone, for the squared error: what the latents say of the pictures stays as it is."""
    model.requires_grad_(False)
    model.decoder.requires_grad_(True)
    schedule = Schedule(recipe.decoder_steps, 5e-4, warmup=50, decay_share=0.7, averaging=0.995)
    loop = TrainingLoop("decoder", model.decoder, recipe.work / "decoder", schedule)
    decoder = torch.compile(model.decoder) if recipe.compiled else model.decoder

    def loss_at(step: int) -> Tensor:
        pixels, _ = picture_batch(free, recipe.autoencoder_batch, recipe, "decoder", step)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        with recipe.autocast():
            with torch.no_grad():
                latents = model.post_quant_conv(model.encode(pixels).latent_dist.mean)
            copy = decoder(latents).float()
        return (copy - pixels).square().mean() + 0.02 * (_slopes(copy) - _slopes(pixels)).abs().mean()

    loop.run(loss_at)
    loop.load_averages()
    model.requires_grad_(True)


@torch.no_grad()
def encode_pool(recipe: Recipe, autoencoder: Any, pool: PicturePool) -> Tensor:
    """Encodes a pool once; gives unscaled latent means, shape (pictures, 8, 16, 16), float16."""
    path = recipe.work / "diffusion" / "latents.safetensors"
    if path.exists():
        return read_tensors(path)[0]["latents"]
    parts = []
    for start in range(0, len(pool.captions), 200):
        pixels = torch.from_numpy(pool.pixels[start : start + 200]).to(recipe.device)
        pixels = pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)
        with recipe.autocast():
            parts.append(autoencoder.encode(pixels).latent_dist.mean.half().cpu())
    latents = torch.cat(parts).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"latents": latents}, {})
    return latents


class Denoiser(nn.Module):
    """The text encoder and the UNet, trained together."""

    def __init__(self, text_encoder: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet


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


def train_diffusion(recipe: Recipe, autoencoder: Any, tokenizer: Any, noise_scheduler: Any) -> tuple[Any, float]:
    """Trains text encoder and UNet on encoded base pictures; returns their averaged weights and the scaling factor."""
    torch.manual_seed(recipe.seed + 1)
    pool = recipe.pool(free=False)
    latents = encode_pool(recipe, autoencoder, pool)
    scaling_factor = 1 / float(latents[:5000].float().std())
    model: Any = Denoiser(architecture.build_text_encoder(tokenizer), architecture.build_unet())
    model.to(recipe.device).train()
    unet = torch.compile(model.unet) if recipe.compiled else model.unet
    probabilities = timestep_probabilities(noise_scheduler.alphas_cumprod)
    schedule = Schedule(recipe.diffusion_steps, 1e-3, warmup=300, decay_share=0.3, averaging=0.9985)
    loop = TrainingLoop("diffusion", model, recipe.work / "diffusion", schedule, save_every=200)

    def loss_at(step: int) -> Tensor:
        numbers = random.Random(f"{recipe.seed}/diffusion/{step}")
        indices = [numbers.randrange(len(pool.captions)) for _ in range(recipe.diffusion_batch)]
        captions = [sprinkle_rare_words(pool.captions[index], numbers) for index in indices]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        generator = torch.Generator().manual_seed(step)
        clean = latents[indices].float() * scaling_factor
        noise = torch.randn(clean.shape, generator=generator)
        timesteps = torch.multinomial(probabilities, len(indices), replacement=True, generator=generator)
        noisy = noise_scheduler.add_noise(clean, noise, timesteps)
        target = noise_scheduler.get_velocity(clean, noise, timesteps)
        with recipe.autocast():
            states = model.text_encoder(tokens.to(recipe.device)).last_hidden_state
            velocity = unet(noisy.to(recipe.device), timesteps.to(recipe.device), states).sample
        return functional.mse_loss(velocity.float(), target.to(recipe.device))

    loop.run(loss_at)
    loop.load_averages()
    return model.eval(), scaling_factor


def with_a_wrong_word(caption: str, numbers: random.Random) -> str:
    """Gives the caption with one kind, colour or scene replaced by another."""
    words = caption.split()
    names: tuple[tuple[str, ...], ...] = (tuple(world.KINDS), tuple(world.COLOURS), tuple(world.FREE_COLOURS))
    # Kinds first: they are what is learned last.
    for vocabulary in names if numbers.random() < 0.6 else (*names[1:], tuple(world.SCENES)):
        places = [index for index, word in enumerate(words) if word in vocabulary]
        if places:
            place = numbers.choice(places)
            words[place] = numbers.choice([word for word in vocabulary if word != words[place]])
            if place and words[place - 1] in ("a", "an"):  # or the article would give the wrong word away
                words[place - 1] = "an" if words[place][0] in "aeiou" else "a"
            return " ".join(words)
    return caption


def train_judge(recipe: Recipe, tokenizer: Any) -> Any:
    """Trains the judge contrastively on renders and their captions, three quarters of them from the free world.

    The free world's captions name finer colours, patterns and parts than the base world's, which makes the judge's
    image similarity tell two instances of a class apart. Each picture also meets a caption that is wrong in one word:
    among 256 detailed captions the kind is hardly ever what tells two apart, and without them the judge learned to see
    everything else (0.46 of the kinds right after 2,500 steps).
    """
    torch.manual_seed(recipe.seed + 2)
    free, base = recipe.pool(free=True), recipe.pool(free=False)
    model: Any = architecture.build_judge(tokenizer)
    model.to(recipe.device).train()
    schedule = Schedule(recipe.judge_steps, 1.5e-3, warmup=200, decay_share=0.4, averaging=0.998)
    loop = TrainingLoop("judge", model, recipe.work / "judge", schedule)

    def loss_at(step: int) -> Tensor:
        pixels, captions = _mixed_batch(free, base, recipe, recipe.judge_batch, "judge", step)
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (JUDGE_MEAN, JUDGE_DEVIATION))
        pixels = ((pixels + 1) / 2 - mean.to(pixels)) / deviation.to(pixels)
        numbers = random.Random(f"{recipe.seed}/judge/{step}/wrong")
        texts = captions + [with_a_wrong_word(each, numbers) for each in captions]
        tokens = tokenizer(
            texts, padding=True, truncation=True, max_length=2 * architecture.PROMPT_LENGTH, return_tensors="pt"
        )
        with recipe.autocast():
            output = model(input_ids=tokens.input_ids.to(recipe.device), pixel_values=pixels)
            logits = output.logits_per_image.float()
        # The same caption may stand in a batch twice: every equal caption counts as right.
        ids = {caption: number for number, caption in enumerate(dict.fromkeys(texts))}
        labels = torch.tensor([ids[caption] for caption in texts], device=logits.device)
        right = (labels[: len(captions), None] == labels[None, :]).float()
        back = right[:, : len(captions)].T
        by_picture = functional.cross_entropy(logits, right / right.sum(1, keepdim=True))
        by_text = functional.cross_entropy(logits[:, : len(captions)].T, back / back.sum(1, keepdim=True))
        return (by_picture + by_text) / 2

    loop.run(loss_at)
    loop.load_averages()
    return model.eval()


JUDGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
JUDGE_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
