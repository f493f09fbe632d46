"""Rare words: which qualify, how they are ranked, and which concept starts from which."""

import itertools
import re
from pathlib import Path

import pytest
import torch
import yaml

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.rare_words import (
    assigned_starts,
    chosen_rare_words,
    rank_rare_words,
    rare_word_candidates,
    rare_word_embedding,
    starts,
)
from cns_lightning.diffusion.text import token_ids
from cns_lightning.errors import UserError
from cns_lightning.miniature.architecture import RARE_WORDS


@pytest.fixture(scope="module")
def miniature() -> BaseModel:
    return BaseModel.load("miniature")


def test_candidates_are_the_words_that_name_nothing(miniature: BaseModel) -> None:
    # The miniature was trained with these in front of nouns at random; all others of its vocabulary mean something.
    assert set(rare_word_candidates(miniature)) == set(RARE_WORDS)


def test_a_word_that_means_something_is_minded_more(miniature: BaseModel) -> None:
    ranked = rank_rare_words(miniature, ["dog", "pixel", "fep", "mtn", "ucd", "crown"])
    assert set(ranked[:3]) == {"fep", "mtn", "ucd"}


def test_the_words_of_the_shipped_configurations_are_the_ranking(miniature: BaseModel) -> None:
    ranked = rank_rare_words(miniature, RARE_WORDS)
    for name in ("base/miniature", "experiments/demo"):
        words = yaml.safe_load(Path(f"configs/{name}.yaml").read_text("utf-8"))["model"]["rare_words"]
        assert sorted(words) == sorted(RARE_WORDS)
        # Neighbours may change places with the rounding of a machine.
        assert all(abs(ranked.index(word) - place) <= 3 for place, word in enumerate(words)), ranked


def test_a_ranking_does_not_depend_on_the_order_given_but_for_ties(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = rare_word_candidates(base)[:3]
    assert rank_rare_words(base, words) == rank_rare_words(base, list(reversed(words)))
    monkeypatch.setattr("cns_lightning.diffusion.rare_words.disturbances", lambda _, words: dict.fromkeys(words, 0.5))
    assert rank_rare_words(base, words) == words


def test_two_encoders_share_a_word(xl_base: BaseModel) -> None:
    words = chosen_rare_words(xl_base, "auto")
    assert all(len(token_ids(tokenizer, word)) == 1 for tokenizer in xl_base.tokenizers for word in words)
    vectors = rare_word_embedding(xl_base, words[:1])
    for number, vector in enumerate(vectors):
        (row,) = token_ids(xl_base.tokenizers[number], words[0])
        assert torch.equal(vector[0], xl_base.embedding_table(number).weight[row])


def test_given_words_are_taken_as_they_are(miniature: BaseModel) -> None:
    assert chosen_rare_words(miniature, ["wug", "dax"]) == ("wug", "dax")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["wug", "wugdax"], "has wugdax, and miniature reads each as another number of tokens than one"),
        (["wug", "<|endoftext|>"], "has <|endoftext|>, and miniature"),
        (["wug", "WUG"], "names a word twice"),
        (["wug", " wug"], "names a word twice"),
        ([], "is an empty list"),
        ("wug", "'wug' is not a list of words"),
    ],
)
def test_words_that_cannot_be_used_are_refused(miniature: BaseModel, given: list[str] | str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        chosen_rare_words(miniature, given)


def test_starts_are_distinct_and_single_words_come_first() -> None:
    assert list(itertools.islice(starts("abc"), 4)) == [("a",), ("b",), ("c",), ("a", "b")]
    every = list(starts("abcd"))
    assert len(set(every)) == len(every) == 15


def test_a_start_between_two_words_is_as_long_as_they_are(miniature: BaseModel) -> None:
    (one,), (other,) = (rare_word_embedding(miniature, [word]) for word in ("wug", "dax"))
    (between,) = rare_word_embedding(miniature, ["wug", "dax"])
    assert between.norm().item() == pytest.approx((one.norm() + other.norm()).item() / 2, rel=1e-5)
    assert torch.cosine_similarity(between, one).item() == pytest.approx(
        torch.cosine_similarity(between, other).item(), abs=0.05
    )


def test_a_concept_keeps_its_start_whatever_becomes_of_the_others() -> None:
    first = assigned_starts(["<a>", "<b>", "<c>"], ["x", "y", "z"], {})
    assert first == {"<a>": ("x",), "<b>": ("y",), "<c>": ("z",)}
    learned = {token: first[token] for token in ("<a>", "<c>")}
    # <b> was taken out; what is appended gets its word, not that of <c>.
    assert assigned_starts(["<a>", "<c>", "<d>"], ["x", "y", "z"], learned) == {**learned, "<d>": ("y",)}
    # Learning continues as in one go.
    assert assigned_starts(["<a>", "<b>", "<c>"], ["x", "y", "z"], {"<a>": ("x",)}) == first
    with pytest.raises(UserError, match="1 words are too few"):
        assigned_starts(["<a>", "<b>"], ["x"], {})
