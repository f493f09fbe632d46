"""What perfect pictures score: the prompts are understood, and the way is computed as the document says."""

from random import Random

import pytest

from benchmarks.faithful import SETS, Row, Score, asked_for
from cns_lightning.miniature.world.captions import SCENE_PHRASES
from cns_lightning.miniature.world.vocabulary import COLOURS, STYLES, Thing
from cns_lightning.sequences.sequence import Sequence, sequence_path

THING = Thing("lamp", (1, 2, 3), "plain", (0, 0, 0), (), 0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", SETS)
def test_pictures_show_all_that_the_prompts_ask(name: str) -> None:
    sequence = Sequence.read(sequence_path(name))
    tokens = [concept.token for concept in sequence.concepts if concept.kind in ("animal", "object")]
    prompts = [prompt for prompt in sequence.prompts.single if any(token in prompt for token in tokens)]
    assert len(prompts) == 5 * len(tokens)
    for prompt in prompts:
        picture = asked_for(prompt, THING, Random(0))
        beside = " next to " in prompt
        said = [*SCENE_PHRASES[picture.scene]] if not beside else [picture.things[1].kind]
        assert any(phrase in prompt for phrase in said), prompt
        assert picture.style == next((style for style in STYLES[1:] if f" {style} style" in prompt), "photo"), prompt
        assert len(picture.things) == 1 + beside, prompt
        if beside:
            colour = next(word for word, value in COLOURS.items() if value == picture.things[1].colour)
            assert f"{colour} {picture.things[1].kind}" in prompt
        assert (picture.things[0].kind, picture.things[0].colour) == ("lamp", (1, 2, 3))


@pytest.mark.parametrize(("text", "way"), [(0.6, 0.2), (0.64, 0.25), (0.72, 0.5), (0.9, 0.5)])
def test_way_of_perfect_pictures_is_read_where_enough_of_the_text_is_left(text: float, way: float) -> None:
    # Half of the way to the photos; 0.75, 0.8, 0.9 and more of the class word's CLIP-T of 0.8.
    row = Row("lamp", photos=0.8, class_word=Score(0.4, 0.8), perfect=Score(0.6, text))
    assert row.way == pytest.approx(way)
