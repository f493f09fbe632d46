from pathlib import Path

import numpy
from PIL import Image

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
    for number in (1, 2, 3):
        name = f"miniature_set{number}.yaml"
        assert (tmp_path / name).read_text("utf-8") == (SHIPPED / name).read_text("utf-8")
        prompts = Sequence.read(SHIPPED / name).prompts
        assert (len(prompts.single), len(prompts.double), len(prompts.triple)) == (35, 4, 3)
