"""Textual Inversion: the token's row moves, and nothing else in the whole pipeline does."""

from pathlib import Path
from typing import Any

import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.text import initial_embedding
from cns_lightning.pipeline import load_pipeline
from tests.runs.learning import learn


def test_only_the_token_moves(tiny_base_model: Path, tmp_path: Path) -> None:
    learned: Any = load_pipeline(learn("textual_inversion", tiny_base_model, tmp_path))
    base = BaseModel.load(str(tiny_base_model))
    before: Any = base.pipeline()
    for part in ("unet", "vae", "text_encoder"):
        now = getattr(learned, part).state_dict()
        for name, weight in getattr(before, part).state_dict().items():
            if not name.endswith("token_embedding.weight"):
                assert torch.equal(now[name], weight), f"{part}.{name}"
    found, size = learned.text_encoder.get_input_embeddings().weight, base.vocabulary_sizes[0]
    assert torch.equal(found[:size], base.embedding_table(0).weight)
    for place, word in enumerate(("cat", "dog")):
        started = initial_embedding(base, word, 0, f"<new{place + 1}>")[0][0]
        assert not torch.equal(found[size + place], started), f"the token of the {word} stayed where it started"
