"""CLIP-I and CLIP-T against a plain recomputation."""

import numpy
import pytest
import torch
from torch.nn.functional import normalize

from cns_lightning.evaluation.metrics import ImageAlignment, TextAlignment


def unit(count: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_image_alignment_is_the_mean_of_the_full_matrix() -> None:
    pictures, references = unit(5, 0), unit(3, 1)
    metric = ImageAlignment()
    metric.update(pictures[:2], references)
    metric.update(pictures[2:], references)
    expected = numpy.mean([[float(a @ b) for b in references.double()] for a in pictures.double()])
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-12)


def test_text_alignment_raw_and_clipped() -> None:
    pictures, texts = unit(6, 2), unit(6, 3)
    metric = TextAlignment()
    metric.update(pictures, texts)
    cosines = [float(a @ b) for a, b in zip(pictures.double(), texts.double(), strict=True)]
    assert min(cosines) < 0
    assert float(metric.compute()["cosine"]) == pytest.approx(numpy.mean(cosines), abs=1e-12)
    assert float(metric.compute()["score"]) == pytest.approx(2.5 * numpy.mean([max(c, 0) for c in cosines]), abs=1e-12)
