from pathlib import Path

import numpy
from PIL import Image

from cns_lightning.data.images import read_captions
from cns_lightning.miniature.world.captions import SCENE_PHRASES
from cns_lightning.miniature.world.concepts import draw_sets, write_sets
from cns_lightning.sequences.sequence import Sequence

SHIPPED = Path("configs/sequences")


def test_the_shipped_concepts_are_what_the_generator_draws(tmp_path: Path) -> None:
    write_sets(tmp_path, seed=0)
    drawn = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.png"))
    shipped = sorted(path.relative_to(SHIPPED) for path in SHIPPED.rglob("*.png"))
    assert drawn == shipped
    assert len(drawn) == 105
    for path in drawn:
        assert numpy.array_equal(numpy.asarray(Image.open(tmp_path / path)), numpy.asarray(Image.open(SHIPPED / path)))
    captions = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.txt"))
    shown = [path.with_suffix(".txt") for path in drawn if path.parent.name.endswith(("_scene", "_style"))]
    assert captions == shown
    assert all((tmp_path / path).read_bytes() == (SHIPPED / path).read_bytes() for path in captions)
    for number in (1, 2, 3):
        name = f"miniature_set{number}.yaml"
        assert (tmp_path / name).read_text("utf-8") == (SHIPPED / name).read_text("utf-8")
        prompts = Sequence.read(SHIPPED / name).prompts
        assert (len(prompts.single), len(prompts.double), len(prompts.triple)) == (35, 4, 3)


def test_no_prompt_of_one_concept_asks_for_what_its_pictures_show() -> None:
    for number, concepts in enumerate(draw_sets(3, 0), start=1):
        sequence = Sequence.read(SHIPPED / f"miniature_set{number}.yaml")
        for drawn, concept in zip(concepts, sequence.concepts, strict=True):
            asked = [prompt for prompt in sequence.prompts.single if concept.token in prompt]
            shown = [SCENE_PHRASES[scene][0] for scene in drawn.scenes]
            assert len(asked) == len(shown or asked) == 5
            if concept.kind in ("animal", "object"):
                assert not [prompt for prompt in asked for phrase in shown if phrase in prompt]
            said = set(read_captions(concept).values())
            assert said & set(asked) <= {f"a photo of a {concept.token} scene"}
