"""CLIP-I and CLIP-T against a plain recomputation."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy
import pytest
import torch
from torch.nn.functional import normalize

from cns_lightning.evaluation.metrics import ImageAlignment, TextAlignment
from cns_lightning.evaluation.questions import Question
from cns_lightning.evaluation.score_table import ScoreTable, likeness_within_class
from cns_lightning.sequences.sequence import Concept

if TYPE_CHECKING:
    from cns_lightning.evaluation.metrics import ClipEncoder


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
    cosine, score = TextAlignment(), TextAlignment(as_score=True)
    for metric in (cosine, score):
        metric.update(pictures[:4], texts[:4])
        metric.update(pictures[4:], texts[4:])
    cosines = [float(a @ b) for a, b in zip(pictures.double(), texts.double(), strict=True)]
    assert min(cosines) < 0
    assert float(cosine.compute()) == pytest.approx(numpy.mean(cosines), abs=1e-12)
    assert float(score.compute()) == pytest.approx(2.5 * numpy.mean([max(c, 0) for c in cosines]), abs=1e-12)


def concepts_of(*said: str) -> list[Concept]:
    """Returns concepts of a class word and a kind each."""
    pairs = [each.split() for each in said]
    return [Concept(f"<new{number}>", word, kind, Path()) for number, (word, kind) in enumerate(pairs, start=1)]


def test_a_picture_of_several_concepts_counts_for_the_kind_of_each() -> None:
    table = ScoreTable(concepts_of("cat animal", "wood scene", "cat animal"))
    asked = [
        Question("double", 0, "", "", ("<new1>", "<new2>")),
        Question("double", 1, "", "", ("<new1>", "<new3>")),
        Question("single", 0, "", "", ("<new3>",)),
    ]
    pictures, texts = unit(3, 4), unit(3, 5)
    references = {f"<new{number}>": unit(2, 5 + number) for number in (1, 2, 3)}
    judge = cast("ClipEncoder", SimpleNamespace(texts=lambda given: texts))
    table.add([(each, 0) for each in asked], pictures, references, judge)
    found = table.result()["kinds_of_several"]
    own = {token: pictures @ vectors.T for token, vectors in references.items()}
    animals = torch.cat([own["<new1>"][0], own["<new1>"][1], own["<new3>"][1]])
    assert found["animal"]["clip_i"] == pytest.approx(float(animals.mean()), abs=1e-6)
    assert found["scene"]["clip_i"] == pytest.approx(float(own["<new2>"][0].mean()), abs=1e-6)
    aligned = (pictures * texts).sum(-1)
    assert found["animal"]["clip_t"] == pytest.approx(float(aligned[:2].mean()), abs=1e-6)
    assert found["scene"]["clip_t"] == pytest.approx(float(aligned[0]), abs=1e-6)


def test_every_concept_weighs_the_same_however_many_pictures_there_are_of_it() -> None:
    table = ScoreTable(concepts_of("cat animal", "dog animal"))
    asked = [Question("single", number, "", "", (f"<new{number}>",)) for number in (1, 2)]
    pictures, references = unit(2, 7), {"<new1>": unit(2, 8), "<new2>": unit(6, 9)}
    table.add_images("clip_i", [(each, 0) for each in asked], pictures, references)
    means = [float((pictures[place] @ references[f"<new{place + 1}>"].T).mean()) for place in (0, 1)]
    found = table.images["clip_i"]
    assert float(found["kinds", "animal"].compute()) == pytest.approx(sum(means) / 2, abs=1e-6)
    assert float(found["concepts", "<new2>"].compute()) == pytest.approx(means[1], abs=1e-6)


def test_concepts_of_one_class_are_compared_with_each_other() -> None:
    concepts = [
        Concept(f"<new{number}>", word, "animal", Path()) for number, word in enumerate(("cat", "dog", "cat", "dog"), 1)
    ]
    asked = [
        Question("single", 0, "", "", ("<new1>",)),
        Question("double", 0, "", "", ("<new1>", "<new3>")),
        Question("single", 1, "", "", ("<new3>",)),
    ]
    pictures, references = unit(3, 6), {f"<new{number}>": unit(2, 6 + number) for number in (1, 2, 3)}
    found = likeness_within_class(concepts, [(each, 0) for each in asked], pictures, references)
    assert {token: list(row) for token, row in found.items()} == {
        "<new1>": ["<new1>", "<new3>"],
        "<new3>": ["<new3>", "<new1>"],
    }
    assert found["<new3>"]["<new1>"] == pytest.approx(float((pictures[2] @ references["<new1>"].T).mean()), abs=1e-6)
    assert found["<new1>"]["<new1>"] == pytest.approx(float((pictures[0] @ references["<new1>"].T).mean()), abs=1e-6)
