"""The parts of the miniature base model and of its judge: plain diffusers and transformers classes at small sizes.

Sizes were chosen so that all files together stay below 40 MB in half precision; docs/miniature.md has the figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

PICTURE_SIZE = 64
LATENT_SIZE = 16
# Of 48 numbers a patch. With 8 an autoencoder of twice the size gave 25.2 dB on the concepts after 96,000 pictures.
LATENT_CHANNELS = 16
PROMPT_LENGTH = 24
JUDGE_PATCH = 8
TEXT_WIDTH = 256
# Words that name nothing. They are sprinkled into captions while the base model learns, so that it hears an unknown
# word before a class word without losing the class: what rare tokens are to Stable Diffusion.
RARE_WORDS = tuple(
    "ktn pll ucd mtn qpx vzz wug blik dax fep zop toma gorp snib kavu lirp noz pim quib ruv sarn tulk vash yex".split()
)


def build_tokenizer(folder: Path, words: list[str]) -> CLIPTokenizer:
    """Builds a CLIP tokenizer in which every given word is one token and any other text falls back to its bytes.

    Args:
        folder: where ``vocab.json`` and ``merges.txt`` are written.
        words: lower-case words.
    """
    import json

    from tokenizers import Tokenizer as ByteTokenizer
    from tokenizers import models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_pair = ByteTokenizer(models.BPE(end_of_word_suffix="</w>"))
    byte_pair.pre_tokenizer = pre_tokenizers.Whitespace()
    # With room for everything the trainer merges until each word is a single token.
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=0, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    byte_pair.train_from_iterator(sorted(words), trainer)
    trained = json.loads(byte_pair.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in trained["merges"]]
    entries = alphabet + [f"{letter}</w>" for letter in alphabet] + ["".join(pair) for pair in merges]
    entries = [*dict.fromkeys(entries), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({entry: index for index, entry in enumerate(entries)}), "utf-8")
    merge_lines = "\n".join(" ".join(pair) for pair in merges)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merge_lines}\n", "utf-8")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=PROMPT_LENGTH, pad_token="<|endoftext|>")


def build_text_encoder(tokenizer: Any) -> CLIPTextModel:
    """Builds the text encoder with fresh weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_LENGTH,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_autoencoder() -> AutoencoderKL:
    """Builds the autoencoder, 64x64 pictures to 16x16x16 latents, with fresh weights."""
    from diffusers import AutoencoderKL

    # Its annotations say one level; it takes any number.
    family: Any = AutoencoderKL
    return family(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=PICTURE_SIZE,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """Builds the denoiser, v-prediction on 16x16x16 latents, with fresh weights.

    Text reaches its finest grid, as in Stable Diffusion: a stripe or a crown is finer than the next one.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128, 192),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_judge(tokenizer: Any) -> CLIPModel:
    """Builds the judge, a CLIP model over 64x64 pictures and up to 48 tokens, with fresh weights."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 2 * PROMPT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 384,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "image_size": PICTURE_SIZE,
        "patch_size": JUDGE_PATCH,
    }
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=96, logit_scale_init_value=2.6592)
    )
