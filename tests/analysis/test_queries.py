"""Families of queries: those that ship are what the paper describes, and a file that cannot be used is named."""

from pathlib import Path

import pytest

from cns_lightning.analysis.queries import read_families, words_differing
from cns_lightning.errors import UserError
from cns_lightning.miniature import base_model_path


@pytest.mark.parametrize("name", ["stable_diffusion", "miniature"])
def test_shipped_families_replace_one_word_at_a_time(name: str) -> None:
    families = read_families(name)
    assert len(families) == 3
    for family in families:
        assert len(family.queries) == 11
        assert all(len(query.split(", ")) == 5 and len(query.split()) == 10 for query in family.queries)
        for one, query in enumerate(family.queries):
            for other, another in enumerate(family.queries):
                assert words_differing(query, another) == abs(one - other)


def test_the_miniature_knows_every_word_of_its_queries() -> None:
    from transformers import CLIPTokenizer

    from cns_lightning.miniature.world.sampling import words

    tokenizer = CLIPTokenizer.from_pretrained(base_model_path() / "tokenizer")
    known = set(words())
    for family in read_families("miniature"):
        for query in family.queries:
            assert {word.strip(",") for word in query.split()} <= known
            assert len(tokenizer(query).input_ids) <= tokenizer.model_max_length


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [("red cat", "Red, cat", 0), ("red cat", "cat red", 2), ("a red cat", "red cat", 1), ("a cat", "two dogs run", 3)],
)
def test_words_that_differ(one: str, other: str, count: int) -> None:
    assert words_differing(one, other) == words_differing(other, one) == count


def test_a_file_without_headings_is_one_family(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a cat\n\na dog\n", "utf-8")
    [family] = read_families(str(tmp_path / "mine.txt"))
    assert (family.name, family.queries) == ("queries", ("a cat", "a dog"))


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"there is no file absent\. Give a path, or one of miniature, stable_diffusion"
    ):
        read_families("absent")
    (tmp_path / "empty.txt").write_text("# nothing\n", "utf-8")
    with pytest.raises(UserError, match="holds no queries"):
        read_families(str(tmp_path / "empty.txt"))
    (tmp_path / "one.txt").write_text("# cats\na cat\n", "utf-8")
    with pytest.raises(UserError, match="cats: has one query"):
        read_families(str(tmp_path / "one.txt"))
