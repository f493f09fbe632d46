"""Textual Inversion: the token's row moves, and nothing else in the whole model does, neither live nor replayed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.start_embeddings import word_embedding
from cns_lightning.methods.textual_inversion import TextualInversion
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.record import ConceptRecord
from tests.runs.learning import learn


def assert_only_rows_added(now: Any, before: Any, size: int) -> None:
    """Compares unet, vae and text encoder bit by bit; the table of the latter has rows for the tokens besides."""
    for part in ("unet", "vae", "text_encoder"):
        weights = getattr(now, part).state_dict()
        for name, weight in getattr(before, part).state_dict().items():
            found = weights[name][:size] if name.endswith("token_embedding.weight") else weights[name]
            expected = weight[:size] if name.endswith("token_embedding.weight") else weight
            assert torch.equal(found.cpu(), expected), f"{part}.{name}"


def test_only_the_token_moves(tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = BaseModel.load(str(tiny_base_model))
    before, size = base.pipeline(), base.vocabulary_sizes[0]
    finish, looked = TextualInversion.finish_stage, []

    def finish_stage(self: TextualInversion) -> ConceptRecord:
        assert_only_rows_added(self.context.base.pipeline(), before, size)
        looked.append(self.context.stage)
        return finish(self)

    monkeypatch.setattr(TextualInversion, "finish_stage", finish_stage)
    learned: Any = load_pipeline(learn("textual_inversion", tiny_base_model, tmp_path))
    assert looked == [0, 1]
    assert_only_rows_added(learned, before, size)
    rows = learned.text_encoder.get_input_embeddings().weight
    for place, word in enumerate(("cat", "dog")):
        started = word_embedding(base, word, f"<new{place + 1}>")[0][0]
        moved = (rows[size + place] - started).abs().max()
        assert 0 < moved <= 2 * 5e-4 + 1e-6, f"the token of the {word}: two steps of AdamW from the class word itself"
