"""Prompts of a concept."""

import re
from pathlib import Path

import pytest

from cns_lightning.errors import UserError
from cns_lightning.sequences.sequence import Concept, EvaluationPrompts, Sequence
from cns_lightning.sequences.templates import PromptTemplates, check_templates, class_prompt, training_prompt

CAT = Concept("<new1>", "cat", "animal", Path("cat"))
STYLE = Concept("<new2>", "style", "style", Path("style"))


def test_templates_by_kind() -> None:
    assert training_prompt(CAT) == "photo of a <new1> cat"
    assert training_prompt(CAT, prefix="zoomed in ") == "zoomed in photo of a <new1> cat"
    assert training_prompt(STYLE) == "painting in <new2> style"


def test_caption_gets_the_token_before_the_class_word() -> None:
    assert training_prompt(CAT, caption="my cat on a sofa") == "my <new1> cat on a sofa"
    assert training_prompt(CAT, caption="<new1> cat asleep") == "<new1> cat asleep"
    assert training_prompt(CAT, caption="asleep on a sofa") == "<new1> cat, asleep on a sofa"
    assert training_prompt(CAT, caption="a category") == "<new1> cat, a category"
    assert training_prompt(CAT, caption="My Cat on a sofa") == "My <new1> cat on a sofa"


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("a photo of {name}", "names {name}"),
        ("a photo of a cat", "without the token"),
        ("a photo of {token", "Close every brace"),
        ("a photo of {}", "names {}"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_refused(template: str, part: str) -> None:
    with pytest.raises(UserError, match=re.escape(part)) as refused:
        check_templates(PromptTemplates(scene=template))
    assert "data.templates.scene" in str(refused.value)
    check_templates(PromptTemplates())


def test_a_method_may_name_the_token_alone() -> None:
    assert training_prompt(CAT, names_class_word=False) == "photo of a <new1>"
    assert training_prompt(CAT, caption="my cat on a sofa", names_class_word=False) == "my <new1> on a sofa"
    assert training_prompt(CAT, caption="asleep", names_class_word=False) == "<new1>, asleep"
    assert training_prompt(STYLE, names_class_word=False) == "painting in <new2> style"


def test_class_prompt_names_no_token() -> None:
    sequence = Sequence("two", (CAT, STYLE), EvaluationPrompts())
    assert class_prompt("a <new1> cat in <new2> style", sequence) == "a cat in style"
    assert class_prompt("a <new1> asleep", sequence) == "a cat asleep"
