"""What tells one pretrained model from another: a checksum of every part that decides masks, states and pictures."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import torch

from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.storage import fingerprint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cns_lightning.diffusion.base_model import BaseModel

# Only settings that change what a weight means. A whole config would not do: a newer diffusers adds keys to it.
UNET_KEYS = ("in_channels", "sample_size", "block_out_channels", "cross_attention_dim")
TEXT_KEYS = ("hidden_act", "layer_norm_eps", "num_attention_heads", "num_hidden_layers")
SCHEDULER_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")


def model_fingerprints(base: BaseModel) -> tuple[str, str]:
    """Returns the SHA-256 that identifies a base model, and the one that registries of earlier versions hold.

    The earlier one covers key and value weights, token embeddings and key settings. The present one adds every layer of
    the text encoders with their vocabularies, which decide text states and masks, and the sum of all bits of UNet and
    autoencoder: a sum, since hashing the ten gigabytes of SDXL would take longer than reading them. LoRA files that
    are folded in count by their content and strength.

    Args:
        base: base model with its weights as they were read, in float32, before anything is folded in; added tokens do
            not count.
    """
    tensors = {name: each.weight.detach().float() for name, each in key_value_projections(base.unet).items()}
    for number, rows in enumerate(base.vocabulary_sizes):
        tensors[f"token_embeddings.{number}"] = base.embedding_table(number).weight.detach()[:rows].float()
    settings = {key: base.unet.config[key] for key in UNET_KEYS}
    settings |= {key: base.noise_scheduler.config[key] for key in SCHEDULER_KEYS}
    settings["scaling_factor"] = base.vae.config["scaling_factor"]
    earlier = _sha256(fingerprint(tensors) + json.dumps(settings, sort_keys=True))
    layers: dict[str, Tensor] = {}
    for number, encoder in enumerate(base.text_encoders):
        table = base.embedding_table(number).weight
        for name, weight in encoder.named_parameters():
            if weight is not table:
                # transformers 5.6 took this prefix out of the names.
                layers[f"{number}.{name.removeprefix('text_model.')}"] = weight.detach().float()
    sums = [_sum_of_bits(base.unet), _sum_of_bits(base.vae)]
    encoders = [[getattr(encoder.config, key) for key in TEXT_KEYS] for encoder in base.text_encoders]
    heads = [base.unet.config.get(key) for key in ("attention_head_dim", "num_attention_heads")]
    zero = bool(base.scheduler.config.get("rescale_betas_zero_snr", False))
    vocabularies = [sorted(tokenizer.get_vocab().items()) for tokenizer in base.tokenizers]
    facts = [earlier, fingerprint(layers), sums, encoders, heads, zero, vocabularies]
    plain = _sha256(json.dumps(facts))
    loras = [[each.sha256, each.strength] for each in base.origin.loras]
    if not loras:
        return plain, earlier
    return _sha256(json.dumps([plain, loras])), _sha256(json.dumps([earlier, loras]))


def _sum_of_bits(part: nn.Module) -> int:
    """Sums the weights' bits as integers: the same whatever the order, the names and the number of threads."""
    return sum(int(weight.detach().float().view(torch.int32).sum(dtype=torch.int64)) for weight in part.parameters())


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
