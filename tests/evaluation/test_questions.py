"""Which prompts are asked, and what the judge reads of them."""

from pathlib import Path

import pytest

from cns_lightning.evaluation.questions import described, questions, scoring_text
from cns_lightning.sequences.sequence import Concept, EvaluationPrompts, Sequence
from cns_lightning.sequences.templates import token_alone

CAT = Concept("<new1>", "cat", "animal", Path("cat"))
STYLE = Concept("<new2>", "style", "style", Path("style"))
SEQUENCE = Sequence(
    "two",
    (CAT, STYLE),
    EvaluationPrompts(
        single=("a <new1> cat", "a dog in <new2> style", "a <new1> cat in the snow"),
        double=("a <new1> cat in <new2> style",),
    ),
)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a photo of a <new1> cat in the snow", "a photo of a cat in the snow"),
        ("<new1> asleep", "cat asleep"),
        ("a dog in <new2> style", "a dog"),
        ("a dog in the style of <new2> style", "a dog"),
        ("a <new1> cat next to a dog in <new2> style at night", "a cat next to a dog at night"),
        ("a <new2> style teapot", "a teapot"),
        ("a <new2> style old photo of a cat", "an old photo of a cat"),
        ("In the style of <new2>, an apple on a table", "an apple on a table"),
        ("a cat, by <new2>", "a cat"),
        ("a unicorn in <new2> style", "a unicorn"),
        ("a dog in a <new2> style", "a dog"),
        ("a dog, <new2>", "a dog"),
        ("<new2> style", "style"),
        ("two <new1> cats", "two cats"),
        ("no concept here", "no concept here"),
    ],
)
def test_the_judge_reads_class_words_and_no_styles(prompt: str, text: str) -> None:
    assert scoring_text(prompt, SEQUENCE) == text


def test_a_class_word_that_says_what_it_is_stays() -> None:
    painting = Sequence("one", (Concept("<new3>", "painting", "style", Path("style")),), EvaluationPrompts())
    assert scoring_text("a <new3> painting of a dog", painting) == "a painting of a dog"


def test_only_what_was_learned_is_asked_under_its_number_in_the_file() -> None:
    found = [(each.group, each.number, each.tokens) for each in questions(SEQUENCE, ["<new1>"])]
    assert found == [("single", 0, ("<new1>",)), ("single", 2, ("<new1>",))]
    assert len(questions(SEQUENCE, ["<new1>", "<new2>"])) == 4


def test_methods_without_class_words_are_asked_without() -> None:
    assert (
        token_alone("a <new1> cat next to a cat in <new2> style", SEQUENCE.concepts)
        == "a <new1> next to a cat in <new2> style"
    )
    assert token_alone("two <new1> cats and a <new1> Cat", SEQUENCE.concepts) == "two <new1> and a <new1>"
    assert token_alone("a <new1> category", SEQUENCE.concepts) == "a <new1> category"
    (first, *_) = questions(SEQUENCE, ["<new1>"], names_class_word=False)
    assert (first.prompt, first.text) == ("a <new1>", "a cat")


def test_a_description_says_what_words_can() -> None:
    concepts = (
        Concept("<new1>", "cat", "animal", Path(), "an orange striped cat with a hat"),
        Concept("<new2>", "style", "style", Path(), "pink glowing style"),
        Concept("<new3>", "scene", "scene", Path()),
    )
    sequence = Sequence("three", concepts, EvaluationPrompts())
    assert described("A <new1> cat next to a dog", sequence) == "An orange striped cat with a hat next to a dog"
    assert described("two <new1> cats", sequence) == "two orange striped cat with a hat"
    assert described("<new1> in <new2> style", sequence) == "orange striped cat with a hat in pink glowing style"
    assert described("a <new1> cat in the <new3> scene", sequence) == "an orange striped cat with a hat in the scene"
