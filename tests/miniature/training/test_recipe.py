"""How the trained models are written."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import CLIPTextModel

from cns_lightning.miniature.tiny import tiny_base_model
from cns_lightning.miniature.training.recipe import name_for_every_version


def test_a_text_encoder_has_the_names_that_every_version_reads(tmp_path: Path) -> None:
    folder = tiny_base_model(tmp_path) / "text_encoder"
    before, tokens = CLIPTextModel.from_pretrained(folder), torch.arange(8)[None]
    name_for_every_version(folder / "model.safetensors")
    name_for_every_version(folder / "model.safetensors")
    names = load_file(folder / "model.safetensors")
    assert all(name.startswith("text_model.") and name.count("text_model") == 1 for name in names)
    loaded: Any = CLIPTextModel.from_pretrained(folder, output_loading_info=True)
    after, about = loaded
    assert not about["missing_keys"]
    assert not about["unexpected_keys"]
    assert torch.equal(before(tokens).last_hidden_state, after(tokens).last_hidden_state)
