"""Makes the shipped miniature from nothing: pictures, autoencoder, diffusion, judge, folder.

``python -m cns_lightning.miniature --work runs/miniature`` runs all stages, each continuing where it stopped.
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from cns_lightning.diffusion.allocator import keep_freed_memory
from cns_lightning.diffusion.picture_processors import pillow_processor
from cns_lightning.miniature import architecture
from cns_lightning.miniature.training.judge import JUDGE_DEVIATION, JUDGE_MEAN, train_judge
from cns_lightning.miniature.training.stages import Recipe, train_autoencoder, train_diffusion, train_text_encoder
from cns_lightning.miniature.world import sampling
from cns_lightning.miniature.world.wide import wide_words
from cns_lightning.storage import read_json, read_tensors, write_json, write_tensors

STAGES = ("autoencoder", "diffusion", "judge")
RECIPES: dict[str, dict[str, Any]] = {
    "cpu": {},
    "gpu": {
        "device": "cuda",
        "processes": 16,
        "free_pictures": 60_000,
        "base_pictures": 100_000,
        "wide_pictures": 240_000,
        "parts_pictures": 120_000,
        "autoencoder_batch": 64,
        "text_steps": 1_600,
        "diffusion_batch": 256,
        "plain_steps": 1_000,
        "diffusion_steps": 24_000,
        "save_every": 3_000,
        "judge_batch": 256,
    },
}
"""What differs from the defaults of `Recipe`: hours on two cores, or minutes on a GPU with sixteen cores beside it."""
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}


def train(recipe: Recipe, stages: tuple[str, ...], out: Path, autoencoder: Path | None = None) -> None:
    """Runs the stages asked for and writes ``out/base`` (after diffusion) and ``out/judge``.

    Args:
        recipe: sizes.
        stages: stages of `STAGES`.
        out: folder for the two models.
        autoencoder: folder of an autoencoder to take instead of training one.
    """
    if "diffusion" in stages:
        _train_base(recipe, out / "base", autoencoder)
    elif "autoencoder" in stages:
        train_autoencoder(recipe)
    if "judge" in stages:
        tokenizer = architecture.build_tokenizer(
            recipe.work / "judge" / "tokenizer", sorted({*sampling.words(), *sampling.free_words(), *wide_words()})
        )
        judge = train_judge(recipe, tokenizer)
        write_judge(judge, tokenizer, out / "judge")


def _train_base(recipe: Recipe, folder: Path, ready: Path | None) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline

    words = sorted({*sampling.words(), *wide_words(), *architecture.RARE_WORDS})
    tokenizer = architecture.build_tokenizer(recipe.work / "diffusion" / "tokenizer", words)
    text_encoder = train_text_encoder(recipe, tokenizer)
    autoencoder: Any = train_autoencoder(recipe) if ready is None else AutoencoderKL.from_pretrained(ready)
    unet, scaling_factor = train_diffusion(recipe, autoencoder, text_encoder, tokenizer, DDPMScheduler(**NOISE))
    autoencoder.register_to_config(scaling_factor=round(scaling_factor, 5))
    family: Any = StableDiffusionPipeline
    pipeline = family(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        # Without clip_sample=False the predicted latents would be cut to [-1, 1].
        scheduler=DDIMScheduler(
            **NOISE, clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for part in (autoencoder, text_encoder, unet):
        part.to("cpu", torch.float16, memory_format=torch.contiguous_format)
    pipeline.save_pretrained(folder, safe_serialization=True)
    load_in_single_precision(folder / "text_encoder")
    name_for_every_version(folder / "text_encoder" / "model.safetensors")


def name_for_every_version(path: Path) -> None:
    """Puts ``text_model.`` before the names of a text encoder's tensors, as every version of transformers reads them.

    Version 5.6 and later write them without; what earlier ones do not find there they fill with random numbers.
    """
    tensors, metadata = read_tensors(path)
    prefix = "text_model."
    write_tensors(path, {prefix + name.removeprefix(prefix): value for name, value in tensors.items()}, metadata)


def load_in_single_precision(folder: Path) -> None:
    """Lets transformers load a model in single precision that is stored in half, as diffusers does by itself.

    Left as saved, a stock pipeline gets a text encoder in half and a UNet in single precision, and cannot sample.
    """
    path = folder / "config.json"
    write_json(path, {**read_json(path), "dtype": "float32"})


def write_judge(judge: Any, tokenizer: Any, folder: Path) -> None:
    """Writes the judge as a stock CLIPModel folder with its processor's settings."""
    size = architecture.PICTURE_SIZE
    processor = pillow_processor("clip")(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(JUDGE_MEAN),
        image_std=list(JUDGE_DEVIATION),
    )
    judge.half().save_pretrained(folder)
    load_in_single_precision(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(prog="python -m cns_lightning.miniature", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of pools, states and results")
    parser.add_argument("--out", type=Path, help="where the two model folders go; default WORK/weights")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--autoencoder", type=Path, help="folder of an autoencoder to take instead of training one")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves the choice to torch")
    parser.add_argument("--recipe", choices=RECIPES, default="cpu", help="sizes; those given by themselves go before")
    for field in fields(Recipe):
        if field.name != "work":
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default))
    arguments = vars(parser.parse_args())
    stages, out, threads = arguments.pop("stages"), arguments.pop("out"), arguments.pop("threads")
    autoencoder = arguments.pop("autoencoder")
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    given = {name: value for name, value in arguments.items() if value is not None and name != "recipe"}
    recipe = replace(Recipe(arguments["work"]), **{**RECIPES[arguments["recipe"]], **given})
    train(recipe, tuple(stages), out or recipe.work / "weights", autoencoder)
