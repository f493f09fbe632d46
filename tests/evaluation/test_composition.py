"""Whether pictures of several concepts show all of them."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional

from cns_lightning.evaluation.composition import shows_all
from cns_lightning.evaluation.questions import Question
from cns_lightning.sequences.sequence import Concept

if TYPE_CHECKING:
    from cns_lightning.evaluation.metrics import ClipEncoder

AXES = ["cat", "owl", "cup", "cave"]


def toward(*words: str) -> torch.Tensor:
    """Returns a unit vector halfway between the axes of some words."""
    return functional.normalize(torch.eye(len(AXES))[[AXES.index(word) for word in words]].sum(0), dim=0)


def texts(given: list[str]) -> torch.Tensor:
    return torch.stack([toward(*(word for word in AXES if word in text.split())) for text in given])


def test_a_picture_shows_all_where_no_text_of_fewer_is_nearer() -> None:
    words = (("<a>", "cat", "animal"), ("<b>", "owl", "animal"), ("<c>", "cup", "object"), ("<d>", "cave", "scene"))
    concepts = [Concept(token, word, kind, Path()) for token, word, kind in (*words, ("<e>", "cat", "animal"))]
    judge = cast("ClipEncoder", SimpleNamespace(texts=texts))

    def shown(tokens: tuple[str, ...], *seen: str) -> bool | None:
        return shows_all(concepts, [Question("double", 0, "", "", tokens)], toward(*seen)[None], judge)[0]

    assert shown(("<a>", "<b>"), "cat", "owl") is True
    assert shown(("<a>", "<b>"), "cat") is False
    assert shown(("<a>", "<b>"), "cat", "owl", "cave") is True
    assert shown(("<a>", "<b>", "<c>"), "cat", "owl") is False
    assert shown(("<a>", "<b>", "<c>"), "cat", "cup", "owl") is True
    assert shown(("<a>", "<b>", "<d>"), "cat", "owl") is True, "scenes are not counted"
    assert shown(("<a>", "<d>"), "cat", "cave") is None
    assert shown(("<a>", "<e>"), "cat") is None, "a text does not tell two cats from one"


def test_texts_have_their_articles() -> None:
    concepts = [Concept("<a>", "owl", "animal", Path()), Concept("<b>", "cup", "object", Path())]
    asked: list[str] = []
    judge = cast("ClipEncoder", SimpleNamespace(texts=lambda given: asked.extend(given) or torch.eye(3)))
    shows_all(concepts, [Question("double", 0, "", "", ("<a>", "<b>"))] * 2, torch.eye(3)[:2], judge)
    assert asked == ["an owl", "a cup", "an owl and a cup"]
