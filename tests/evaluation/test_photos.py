"""Likeness of photos, counted by hand."""

from pathlib import Path

import pytest
import torch

from cns_lightning.evaluation.photos import likeness_of_photos
from cns_lightning.sequences.sequence import Concept


def concept(token: str, class_word: str) -> Concept:
    return Concept(token=token, class_word=class_word, kind="object", images=Path("photos"))


def test_photos_are_compared_with_other_photos_only() -> None:
    concepts = [concept("<new1>", "mug"), concept("<new2>", "mug"), concept("<new3>", "car")]
    references = {
        "<new1>": torch.tensor([[1.0, 0.0], [0.6, 0.8]]),
        "<new2>": torch.tensor([[0.0, 1.0], [0.0, 1.0]]),
        "<new3>": torch.tensor([[1.0, 0.0]]),
    }
    found = likeness_of_photos(concepts, references)
    assert found["concepts"] == pytest.approx({"<new1>": 0.6, "<new2>": 1.0, "<new3>": None})
    assert found["clip_i"] == pytest.approx(0.8)
    across = (0.0 + 0.0 + 0.8 + 0.8) / 4
    assert found["apart"] == {"<new1>": {"<new2>": pytest.approx(0.6 + 1.0 - 2 * across)}}
