"""A single-file checkpoint in the original layout opens without a network when the small files lie beside it."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.sampling import generate
from cns_lightning.errors import UserError

# (name in diffusers, name in the original layout), for the tiny model's two levels of one layer.
UNET_BLOCKS = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("conv_in", "input_blocks.0.0"),
    ("down_blocks.0.resnets.0", "input_blocks.1.0"),
    ("down_blocks.0.attentions.0", "input_blocks.1.1"),
    ("down_blocks.0.downsamplers.0.conv", "input_blocks.2.0.op"),
    ("down_blocks.1.resnets.0", "input_blocks.3.0"),
    ("mid_block.resnets.0", "middle_block.0"),
    ("mid_block.attentions.0", "middle_block.1"),
    ("mid_block.resnets.1", "middle_block.2"),
    ("up_blocks.0.resnets.0", "output_blocks.0.0"),
    ("up_blocks.0.resnets.1", "output_blocks.1.0"),
    ("up_blocks.0.upsamplers.0", "output_blocks.1.1"),
    ("up_blocks.1.resnets.0", "output_blocks.2.0"),
    ("up_blocks.1.attentions.0", "output_blocks.2.1"),
    ("up_blocks.1.resnets.1", "output_blocks.3.0"),
    ("up_blocks.1.attentions.1", "output_blocks.3.1"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
)
UNET_LAYERS = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
VAE_NAMES = (
    (r"decoder\.up_blocks\.(\d)", lambda found: f"decoder.up.{2 - int(found[1])}"),
    (r"encoder\.down_blocks\.(\d)", r"encoder.down.\1"),
    (r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"resnets\.(\d)", r"block.\1"),
    (r"downsamplers\.0", "downsample"),
    (r"upsamplers\.0", "upsample"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"attn_1\.group_norm", "attn_1.norm"),
    (r"attn_1\.to_out\.0", "attn_1.proj_out"),
    (r"attn_1\.to_([qkv])", r"attn_1.\1"),
)


def in_original_layout(base: BaseModel) -> dict[str, Tensor]:
    """Renames the parts' weights as the first Stable Diffusion checkpoints had them."""
    original = {}
    for name, value in base.unet.state_dict().items():
        block = next(pair for pair in UNET_BLOCKS if name.startswith(pair[0] + "."))
        rest = name.removeprefix(block[0])
        if ".resnets." in name:
            rest = next(rest.replace(*pair) for pair in UNET_LAYERS if rest.startswith("." + pair[0]))
        original[f"model.diffusion_model.{block[1]}{rest}"] = value
    for name, value in base.vae.state_dict().items():
        renamed = name
        for pattern, replacement in VAE_NAMES:
            renamed = re.sub(pattern, replacement, renamed)
        is_attention_weight = "attn_1" in renamed and value.ndim == 2
        original[f"first_stage_model.{renamed}"] = value[:, :, None, None] if is_attention_weight else value
    for name, value in base.text_encoders[0].state_dict().items():
        original[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    return {name: value.clone().contiguous() for name, value in original.items()}


@pytest.fixture
def checkpoint(base: BaseModel, tmp_path: Path) -> Path:
    """Returns a single-file checkpoint of the tiny model."""
    save_file(in_original_layout(base), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_single_file_equals_the_folder(checkpoint: Path, base: BaseModel, tiny_base_model: Path) -> None:
    shutil.copytree(tiny_base_model, checkpoint.with_suffix(""), ignore=shutil.ignore_patterns("*.safetensors"))
    loaded = BaseModel.load(str(checkpoint))
    assert loaded.fingerprint() == base.fingerprint()
    for part, other in ((loaded.unet, base.unet), (loaded.vae, base.vae)):
        expected = other.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in part.state_dict().items())
    pictures = [generate(each.pipeline(), ["a cat"], [0], steps=2)[0] for each in (loaded, base)]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_single_file_without_network_says_what_to_put_beside_it(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(checkpoint.parent / "cache"))
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be opened .* put the small files .* into .*model"):
        BaseModel.load(str(checkpoint))


def test_damaged_single_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"model\.safetensors: is damaged or not a safetensors file"):
        BaseModel.load(str(path))


def test_a_single_file_for_inpainting_says_so(base: BaseModel, tmp_path: Path) -> None:
    tensors = in_original_layout(base)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    tensors[first] = torch.zeros(len(tensors[first]), 9, 3, 3)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="is a model for inpainting: its UNet reads 9 channels in place of 4"):
        BaseModel.load(str(tmp_path / "model.safetensors"))
