"""Identity on vectors in the plane, where every ranking is plain to see."""

import math
from pathlib import Path

import pytest
import torch

from cns_lightning.evaluation.identity import LookAlikes, among_themselves, confusion, identity_scores, within_class
from cns_lightning.evaluation.questions import Question
from cns_lightning.evaluation.settings import EvaluationSettings
from cns_lightning.sequences.sequence import Concept
from cns_lightning.sequences.templates import PromptTemplates

ONE, TWO = Question("single", 0, "", "", ("<new1>",)), Question("single", 1, "", "", ("<new2>",))
BOTH = Question("double", 0, "", "", ("<new1>", "<new2>"))


def at(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(each)), math.sin(math.radians(each))] for each in degrees])


GALLERY = {"<new1>": at(0, 40), "<new2>": at(90, 180), "any cat": at(30, 31)}


def test_scores_by_hand() -> None:
    # From 10 degrees: 0, any cat twice, 40, 90, 180. From 29: any cat twice, 40, 0, 90, 180. From 100: 90, 40, 31, 30,
    # 180, 0; two of these have negative cosines. The picture of both concepts is no query.
    pairs = [(ONE, 0), (ONE, 1), (TWO, 0), (BOTH, 0)]
    found = identity_scores(pairs, at(10, 29, 100, 29), GALLERY)
    precision = [(1 / 1 + 2 / 4) / 2, (1 / 3 + 2 / 4) / 2, (1 / 1 + 2 / 5) / 2]
    assert found["top1"] == pytest.approx(2 / 3)
    assert found["mean_average_precision"] == pytest.approx(sum(precision) / 3)
    assert found["concepts"] == {
        "<new1>": {"top1": 0.5, "mean_average_precision": pytest.approx(sum(precision[:2]) / 2)},
        "<new2>": {"top1": 1.0, "mean_average_precision": pytest.approx(precision[2])},
    }
    assert confusion(pairs, at(10, 29, 100, 29), GALLERY) == {
        "<new1>": {"<new1>": 0.5, "<new2>": 0.0, "any cat": 0.5},
        "<new2>": {"<new1>": 0.0, "<new2>": 1.0, "any cat": 0.0},
    }


def test_equal_cosines_count_against_the_asked_concept() -> None:
    gallery = {"<new1>": at(0), "<new2>": at(0, 0), "any cat": at(0)}
    for question, nearest, precision in ((ONE, "<new2>", 1 / 4), (TWO, "<new1>", (1 / 3 + 2 / 4) / 2)):
        found = identity_scores([(question, 0)], at(0), gallery)
        assert found["top1"] == 0.0
        assert found["mean_average_precision"] == pytest.approx(precision)
        assert confusion([(question, 0)], at(0), gallery)[question.tokens[0]][nearest] == 1.0


def test_without_a_query_there_are_no_scores() -> None:
    assert identity_scores([(BOTH, 0)], at(0), GALLERY) == {
        "top1": None,
        "mean_average_precision": None,
        "concepts": {},
    }
    assert identity_scores([], None, GALLERY)["top1"] is None
    assert confusion([], None, GALLERY) == {}


def test_concepts_of_one_class_prompt_share_look_alikes_and_keep_their_file_names() -> None:
    concepts = [
        Concept(f"<new{number}>", word, kind, Path())
        for number, (word, kind) in enumerate([("cat", "animal"), ("style", "style"), ("cat", "animal")], 1)
    ]
    templates = PromptTemplates(animal="a photo of a {token} {class_word}", style="a scene in {token} {class_word}")
    settings = EvaluationSettings(look_alikes=2, templates=templates)
    made = LookAlikes(Path("images"), "base", concepts, settings)
    every = made.labels(["<new1>", "<new2>", "<new3>"])
    assert {question.prompt: label for question, label in every.items()} == {
        "a photo of a cat": "any cat", "a scene in style": "any style",
    }  # fmt: skip
    names = [made.place.path(*pair).as_posix() for pair in made.pairs(["<new2>"])]
    assert names == [f"images/look-alikes/lookalike-01-seed-{seed}.png" for seed in (0, 1)]
    references = {concept.token: at(0, 1, 2) for concept in concepts}
    gallery = made.gallery(["<new1>", "<new3>"], references, {question: at(5, 6) for question in every})
    assert {label: len(vectors) for label, vectors in gallery.items()} == {"<new1>": 3, "<new3>": 3, "any cat": 2}
    assert list(made.gallery(["<new2>"], references, {})) == ["<new2>"]


def test_photos_among_themselves_by_hand() -> None:
    """Two close photos find each other; of the other concept one photo stands among strangers, the other far off."""
    references = {"<a>": at(0, 6), "<b>": at(14, 115)}
    found = among_themselves(references)
    assert found["concepts"]["<a>"]["top1"] == 1
    # 14 degrees is nearest to 6; 115 is nearest to 14, its only fellow.
    assert found["concepts"]["<b>"]["top1"] == 0.5
    assert found["top1"] == 0.75
    alone = among_themselves({"<a>": references["<a>"][:1], "<b>": references["<b>"]})
    assert "<a>" not in alone["concepts"]


def test_within_a_class_only_its_photos_count() -> None:
    pairs, vectors = [(ONE, 0), (TWO, 0), (BOTH, 0)], at(51, 95, 51)
    references = {"<new1>": at(0, 40), "<new2>": at(60, 180), "<new3>": at(51, 96)}
    words = {"<new1>": "cat", "<new2>": "cat", "<new3>": "cup", "<new4>": "cat"}
    found = within_class(words, pairs, vectors, references)
    # From 51 degrees 60 is nearest, a photo of the other one; nearer ones are of no cat. From 95: 60, 40, 180, 0.
    assert {token: row["top1"] for token, row in found["concepts"].items()} == {"<new1>": 0.0, "<new2>": 1.0}
    assert found["top1"] == 0.5
    assert within_class({**words, "<new2>": "dog"}, pairs, vectors, references) == {
        "top1": None, "mean_average_precision": None, "concepts": {}
    }  # fmt: skip
