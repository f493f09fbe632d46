"""Settings of single concepts in a sequence file: what is read, every mistake, and what prompts become."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cns_lightning.errors import UserError
from cns_lightning.sequences.concept_settings import ConceptSettings
from cns_lightning.sequences.sequence import Concept, Sequence
from cns_lightning.sequences.templates import class_training_prompt, scoring_prompts, training_prompt


def read(folder: Path, settings: str) -> Sequence:
    """Reads a sequence of one concept with settings as a person would type them."""
    pictures = folder / "cat"
    pictures.mkdir(exist_ok=True)
    for number in range(3):
        Image.new("RGB", (16, 16)).save(pictures / f"{number}.png")
    concept = {"token": "<Momo>", "class_word": "cat", "kind": "animal", "images": "cat"}
    path = folder / "family.yaml"
    path.write_text(yaml.safe_dump({"concepts": [concept]}) + f"  settings: {settings}\n", "utf-8")
    return Sequence.read(path)


def test_settings_are_read_and_kept(tmp_path: Path) -> None:
    typed = '{steps: 400, learning_rate: 1e-3, token_learning_rate: 5.0e-5, prompt: "a  photo of a <momo> cat"}'
    sequence = read(tmp_path, typed)
    settings = sequence.concepts[0].settings
    assert settings == ConceptSettings(
        400, (("learning_rate", 1e-3), ("token_learning_rate", 5e-5)), "a photo of a <Momo> cat"
    )
    assert (settings.rate("learning_rate"), settings.rate("text_learning_rate")) == (1e-3, None)
    plain: Any = yaml.safe_load(yaml.safe_dump(sequence.plain()))
    assert Sequence.from_plain(plain).concepts == sequence.concepts
    assert sequence.without_own_steps().concepts[0].settings == replace(settings, steps=None)
    without = read(tmp_path, "{}")
    assert "settings" not in without.plain()["concepts"][0]
    assert Sequence.from_plain(without.plain()).concepts[0].settings == ConceptSettings()


MISTAKES = {
    "[]": "concepts[0].settings: is []. Give the keys",
    "7": "concepts[0].settings: is 7. Give the keys steps, learning_rate",
    "{stesp: 3}": "settings.stesp: is an unknown key. Did you mean steps",
    "{steps: 0}": "settings.steps: is 0, at least 1 is needed",
    "{steps: 2.5}": "settings.steps: is 2.5, at least 1",
    "{steps: true}": "settings.steps: is True, at least 1",
    "{learning_rate: -1}": "settings.learning_rate: is -1, a number from 0 on is needed",
    "{learning_rate: fast}": "settings.learning_rate: is 'fast', a number",
    "{token_learning_rate: .nan}": "settings.token_learning_rate: is nan, a number",
    "{prompt: 3}": "settings.prompt: is 3, a text is needed",
    "{prompt: a photo of a cat}": "settings.prompt: names no token, a training prompt names <Momo> alone",
    '{prompt: "a <momo> cat and a <mug>"}': "settings.prompt: names <momo>, <mug>, a training prompt names <Momo>",
}


@pytest.mark.parametrize("typed", MISTAKES)
def test_mistakes(tmp_path: Path, typed: str) -> None:
    with pytest.raises(UserError) as refused:
        read(tmp_path, typed)
    assert MISTAKES[typed] in str(refused.value)


def test_all_mistakes_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        read(tmp_path, "{steps: 0, learning_rate: fast, prompt: a cat}")
    assert len(str(refused.value).splitlines()) == 3


@pytest.fixture
def cat() -> Concept:
    """Returns a concept with a prompt of its own."""
    settings = ConceptSettings(prompt="a macro photo of a <momo> cat")
    return Concept("<momo>", "cat", "animal", Path("cat"), settings=settings)


def test_the_own_prompt_takes_the_place_of_the_template(cat: Concept) -> None:
    assert training_prompt(cat) == "a macro photo of a <momo> cat"
    assert scoring_prompts(cat) == ["a macro photo of a <momo> cat"]
    assert training_prompt(cat, prefix="a far away ") == "a far away macro photo of a <momo> cat"
    assert training_prompt(cat, prefix="zoomed in ") == "zoomed in macro photo of a <momo> cat"
    assert training_prompt(cat, names_class_word=False) == "a macro photo of a <momo>"
    # What somebody wrote for one picture is closer than what holds for all.
    assert training_prompt(cat, caption="my cat asleep") == "my <momo> cat asleep"


def test_the_prompt_of_the_class_follows(cat: Concept) -> None:
    assert class_training_prompt(cat) == "a macro photo of a cat"
    alone = replace(cat, settings=ConceptSettings(prompt="a photo of <momo> asleep"))
    assert class_training_prompt(alone) == "a photo of cat asleep"
    style = Concept("<ink>", "style", "style", Path(), settings=ConceptSettings(prompt="a boat in the style of <ink>"))
    assert class_training_prompt(style) == "a boat in a style"
