"""Random models for tests: the formats of Stable Diffusion 1.5 and CLIP at sizes that compute in milliseconds.

Every size differs from Stable Diffusion's, so that a number written into the code breaks a test at once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cns_lightning.diffusion.loading import quiet_loading, stock_pipelines
from cns_lightning.diffusion.picture_processors import pillow_processor
from cns_lightning.miniature.architecture import build_tokenizer
from cns_lightning.miniature.world.vocabulary import COLOURS, KINDS, PATTERNS, SCENES, STYLES

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTokenizer

POSITIONS = 77
TEXT_WIDTH = 12
LATENT_SIZE = 8
PICTURE_SIZE = 32
COMMON_WORDS = (
    "a an the of in on at with and to from photo picture painting drawing toy person man woman tree house plush "
    "backpack teapot duck vase chair table mountain river forest garden street kitchen sitting standing small big"
).split()


def tiny_base_model(folder: Path, seed: int = 0) -> Path:
    """Writes a random Stable-Diffusion-1.5-shaped diffusers folder; the same seed gives the same weights.

    It predicts the noise; the upper of its two levels has cross-attention, as has the middle. Global random state is
    left as it was.

    Args:
        folder: folder of the model; made when missing.
        seed: random seed of the weights.

    Returns:
        The folder.
    """
    import torch
    from diffusers import PNDMScheduler
    from transformers import CLIPTextModel

    plain, _ = stock_pipelines()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer(folder / "tokenizer")
        text_encoder = CLIPTextModel(tiny_text_config(tokenizer))
        unet, vae = tiny_unet(TEXT_WIDTH), tiny_autoencoder()
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    scheduler.register_to_config(clip_sample=False)
    pipeline = plain(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    with quiet_loading():
        pipeline.save_pretrained(folder)
    return folder


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    """Writes a CLIP tokenizer of about a hundred words and all bytes, as Stable Diffusion's files are, and opens it."""
    from transformers import CLIPTokenizer

    words = sorted({*COMMON_WORDS, *KINDS, *COLOURS, *PATTERNS, *SCENES, *STYLES})
    build_tokenizer(folder, words)
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": POSITIONS,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), "utf-8")
    return CLIPTokenizer.from_pretrained(folder)


def tiny_text_config(tokenizer: CLIPTokenizer, **changes: Any) -> Any:
    """Returns the configuration of a text encoder of two layers.

    Args:
        tokenizer: whose vocabulary it reads.
        **changes: settings of ``CLIPTextConfig``.
    """
    from transformers import CLIPTextConfig

    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": POSITIONS,
        "projection_dim": TEXT_WIDTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # Ten times the usual spread: prompts must differ enough for random pictures to differ.
        "initializer_factor": 10.0,
    }
    return CLIPTextConfig(**settings | changes)


def tiny_unet(text_width: int, **changes: Any) -> UNet2DConditionModel:
    """Builds a denoiser with fresh weights from the global random state.

    Args:
        text_width: width of the states it reads.
        **changes: settings of ``UNet2DConditionModel``.
    """
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": LATENT_SIZE,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": text_width,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**settings | changes)


def tiny_autoencoder() -> AutoencoderKL:
    """Builds an autoencoder with fresh weights, 32x32 pictures to 4x8x8 latents, from the global random state."""
    from diffusers import AutoencoderKL

    settings: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (4, 8, 8),
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": PICTURE_SIZE,
    }
    return AutoencoderKL(**settings)


def write_tiny_judge(folder: Path, seed: int = 0) -> Path:
    """Writes a random CLIPModel folder with its tokenizer and picture processor.

    Args:
        folder: folder of the model; made when missing.
        seed: random seed of the weights.

    Returns:
        The folder.
    """
    import torch
    from transformers import CLIPConfig, CLIPModel

    tokenizer = tiny_tokenizer(folder)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": PICTURE_SIZE,
        "patch_size": 8,
    }
    text = tiny_text_config(tokenizer, hidden_size=16, projection_dim=8).to_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    with quiet_loading():
        model.save_pretrained(folder)
    size = {"height": PICTURE_SIZE, "width": PICTURE_SIZE}
    pillow_processor("clip")(size={"shortest_edge": PICTURE_SIZE}, crop_size=size).save_pretrained(folder)
    return folder
