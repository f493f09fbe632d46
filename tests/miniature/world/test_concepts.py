from pathlib import Path

import numpy
from PIL import Image

from cns_lightning.data.images import read_captions
from cns_lightning.miniature.world.concepts import write_sets
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
    assert captions == [path.with_suffix(".txt") for path in drawn]
    assert all((tmp_path / path).read_bytes() == (SHIPPED / path).read_bytes() for path in captions)
    for number in (1, 2, 3):
        name = f"miniature_set{number}.yaml"
        assert (tmp_path / name).read_text("utf-8") == (SHIPPED / name).read_text("utf-8")
        prompts = Sequence.read(SHIPPED / name).prompts
        assert (len(prompts.single), len(prompts.double), len(prompts.triple)) == (35, 4, 3)


def test_no_prompt_asks_for_what_a_caption_says() -> None:
    for number in (1, 2, 3):
        sequence = Sequence.read(SHIPPED / f"miniature_set{number}.yaml")
        said = {caption for concept in sequence.concepts for caption in read_captions(concept).values()}
        plain = {f"a photo of a {concept.token} scene" for concept in sequence.concepts if concept.kind == "scene"}
        assert len(said) > 30
        assert said & set(sequence.prompts.single) <= plain
