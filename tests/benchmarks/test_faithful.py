"""What perfect pictures score: the prompts are understood, and the way is computed as the document says."""

import re
from random import Random

import pytest

from benchmarks.faithful import SETS, Row, Score, paint, scene_of, things_of
from cns_lightning.miniature.world.captions import SCENE_PHRASES
from cns_lightning.miniature.world.concepts import Concept, draw_sets
from cns_lightning.miniature.world.vocabulary import COLOURS, KINDS, Thing
from cns_lightning.sequences.sequence import Sequence, sequence_path

THING = Thing("lamp", (1, 2, 3), "plain", (0, 0, 0), (), 0.0, 0.0, 0.0)
LAMP = Concept("lamp", "lamp", "object", (), "", thing=THING)
NAMED = re.compile(rf"(?:(\S+) )?({'|'.join(KINDS)})\b")


@pytest.mark.parametrize("name", SETS)
def test_pictures_show_all_that_the_prompts_ask(name: str) -> None:
    sequence = Sequence.read(sequence_path(name))
    for concept in sequence.concepts:
        prompts = [prompt for prompt in sequence.prompts.single if concept.token in prompt]
        assert len(prompts) == 5
        for prompt in prompts:
            things = things_of(prompt, {concept.token: LAMP}, Random(0))
            for thing, (word, kind) in zip(things, NAMED.findall(prompt), strict=True):
                if word == concept.token:
                    assert (thing.kind, thing.colour) == ("lamp", (1, 2, 3)), prompt
                else:
                    assert (thing.kind, thing.colour) == (kind, COLOURS.get(word, thing.colour)), prompt
            named = {scene for scene, phrases in SCENE_PHRASES.items() if any(phrase in prompt for phrase in phrases)}
            assert {scene_of(prompt, Random(0))} == named or not named, prompt


def test_styles_and_scenes_are_painted_as_they_are_and_by_the_class_word_are_not() -> None:
    for drawn in draw_sets(2, 0):
        for concept in drawn:
            prompt = f"a <a> {concept.class_word} in the city" if concept.thing else f"a red lamp in <a> {concept.kind}"
            shown = ({"<a>": concept}, {"<a>": concept}, {})
            own, again, plain = (paint(prompt, each, Random(0)) for each in shown)
            assert own == again
            assert own != plain


@pytest.mark.parametrize(("text", "way"), [(0.6, 0.2), (0.64, 0.25), (0.72, 0.5), (0.9, 0.5)])
def test_way_of_perfect_pictures_is_read_where_enough_of_the_text_is_left(text: float, way: float) -> None:
    # Half of the way to the photos; 0.75, 0.8, 0.9 and more of the class word's CLIP-T of 0.8.
    row = Row("lamp", "object", photos=0.8, class_word=Score(0.4, 0.8), perfect=Score(0.6, text))
    assert row.way == pytest.approx(way)
