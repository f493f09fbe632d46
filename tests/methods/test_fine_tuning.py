"""Naive fine-tuning: every key and value weight moves, in every stage, on top of the stages before."""

from itertools import pairwise
from pathlib import Path

import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.rare_words import rare_word_embedding
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import learn


def test_everything_moves_in_every_stage(tiny_base_model: Path, tmp_path: Path) -> None:
    registry = NeuronRegistry.load(learn("fine_tuning", tiny_base_model, tmp_path) / "registry")
    base = BaseModel.load(str(tiny_base_model))
    states = [
        {name: each.weight.detach() for name, each in key_value_projections(base.unet).items()},
        registry.weights("<new1>"),
        registry.weights(),
    ]
    for before, after in pairwise(states):
        for name, weight in before.items():
            moved = (after[name] != weight).double().mean()
            assert moved > 0.99, f"{name}: {moved:.1%} of the weights moved"
    for record in registry.records:
        assert not torch.equal(record.embeddings[0], rare_word_embedding(base, record.rare_words)[0])
