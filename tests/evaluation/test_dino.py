"""DINO on a tiny random vision transformer."""

from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from cns_lightning.errors import UserError
from cns_lightning.evaluation.dino import DEVIATION, MEAN, DinoEncoder
from cns_lightning.evaluation.judges import dino_encoder


def test_vectors_are_those_of_the_class_token_of_the_middle(tiny_dino: Path) -> None:
    # A short side of 32 needs no resizing: the middle 28 x 28 pixels are what is read.
    pixels = numpy.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=numpy.uint8)
    encoder = DinoEncoder(tiny_dino)
    middle = torch.from_numpy(pixels[2:30, 6:34] / 255.0)
    normalized = ((middle - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).permute(2, 0, 1).float()
    with torch.no_grad():
        expected = encoder.model(pixel_values=normalized[None]).last_hidden_state[:, 0]
    found = encoder.images([Image.fromarray(pixels)])
    torch.testing.assert_close(found, expected / expected.norm(), rtol=1e-4, atol=1e-5)


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    assert dino_encoder(None, "cpu") is None
    with pytest.raises(UserError, match=r"--dino: .*nothing cannot be loaded"):
        dino_encoder(str(tmp_path / "nothing"), "cpu")
