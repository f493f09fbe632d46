"""Base models of Stable Diffusion's shapes with random weights: seconds and memory do not depend on what they are.

The autoencoder is a small one with the right factor, for what is measured never draws; the vocabulary of the tokenizer
is small as well, its embedding table has CLIP's size.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.loading import stock_pipelines
from cns_lightning.miniature import tiny

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import CLIPTokenizer

VOCABULARY = 49408

_LARGE: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                          "num_attention_heads": 12, "projection_dim": 768}  # fmt: skip
_HUGE: dict[str, Any] = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
                         "num_attention_heads": 20, "projection_dim": 1280, "hidden_act": "gelu"}  # fmt: skip
_TINY: dict[str, Any] = {"hidden_size": tiny.TEXT_WIDTH, "intermediate_size": 24, "num_hidden_layers": 2,
                         "num_attention_heads": 2, "projection_dim": 12, "initializer_factor": 10.0}  # fmt: skip
_XL_UNET: dict[str, Any] = {
    "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
_TINY_UNET: dict[str, Any] = {
    "cross_attention_dim": tiny.TEXT_WIDTH, "attention_head_dim": 2, "norm_num_groups": 4, "layers_per_block": 1,
    "block_out_channels": (8, 16), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}  # fmt: skip
SHAPES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "sd15": ([_LARGE], {"cross_attention_dim": 768, "attention_head_dim": 8}),
    "sdxl": ([_LARGE, _HUGE], _XL_UNET),
    "tiny": ([_TINY], _TINY_UNET),
}
"""Text encoders and UNet by name; what is not said has the default of transformers and diffusers."""


def random_base(
    shapes: str, size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> BaseModel:
    """Builds a base model in memory; the same arguments give the same one within a process.

    Args:
        shapes: a key of `SHAPES`.
        size: side of the pictures it is for, in pixels, a multiple of 64.
        device: where it is built.
        dtype: precision in which it is built.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    texts, unet = SHAPES[shapes]
    tokenizers = [CLIPTokenizer.from_pretrained(_vocabulary().name) for _ in texts]
    kinds = [CLIPTextModel, CLIPTextModelWithProjection]
    autoencoder: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 4, "sample_size": size,
    }  # fmt: skip
    with _building(device, dtype):
        parts: dict[str, Any] = {
            "vae": AutoencoderKL(**autoencoder),
            "unet": UNet2DConditionModel(sample_size=size // 8, **unet),
        }
        for number, (text, tokenizer, kind) in enumerate(zip(texts, tokenizers, kinds, strict=False)):
            ending = "" if number == 0 else f"_{number + 1}"
            parts[f"text_encoder{ending}"] = kind(CLIPTextConfig(**text, **_ids(tokenizer)))
            parts[f"tokenizer{ending}"] = tokenizer
    parts["scheduler"] = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
    )
    plain, xl = stock_pipelines()
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = plain(**parts, **nothing) if len(texts) == 1 else xl(**parts)  # type: ignore[arg-type]
    return BaseModel(pipeline, f"random weights, {shapes}")


@cache
def _vocabulary() -> tempfile.TemporaryDirectory[str]:
    """Writes the tokenizer's files once a process: to learn a vocabulary anew numbers its words otherwise."""
    folder = tempfile.TemporaryDirectory()
    tiny.tiny_tokenizer(Path(folder.name))
    return folder


@contextmanager
def _building(device: torch.device | str, dtype: torch.dtype) -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(usual)


def _ids(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
