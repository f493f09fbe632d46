from dataclasses import replace

from cns_lightning.miniature.training.patch_labels import LABELS, NOTHING, patch_labels
from cns_lightning.miniature.world.vocabulary import COLOURS, FREE_COLOURS, KINDS, Picture, Thing


def thing(kind: str, colour: str, x: float, y: float) -> Thing:
    return Thing(kind, COLOURS[colour], "striped", (255, 255, 255), (), x, y, size=0.5)


def test_each_patch_names_what_covers_its_middle() -> None:
    left, right = thing("cat", "red", 0.25, 0.5), thing("boat", "blue", 0.75, 0.5)
    labels = patch_labels([Picture("sea", "photo", (left, right)), Picture("sea", "photo", ())], 4)
    cat, boat = 1 + KINDS.index("cat"), 1 + KINDS.index("boat")
    assert labels[0, 0].tolist() == [[0] * 4, [cat, cat, boat, boat], [cat, cat, boat, boat], [0] * 4]
    red = 1 + list(FREE_COLOURS).index("red")
    assert labels[0, 1, 1].tolist()[:2] == [red, red]
    assert set(labels[0, 2, 1].tolist()) == {2}  # plain, striped, ...
    assert (labels[1] == NOTHING).all()
    assert all(labels[:, channel].max() < size for channel, size in enumerate(LABELS))


def test_the_thing_that_stands_lower_is_in_front() -> None:
    behind, front = thing("cat", "red", 0.5, 0.4), thing("boat", "blue", 0.5, 0.6)
    labels = patch_labels([Picture("sea", "photo", (front, behind))], 4)
    assert labels[0, 0, 2, 1] == 1 + KINDS.index("boat")


def test_a_tall_thing_covers_more_rows_and_stands_where_it_stood() -> None:
    plain = thing("cat", "red", 0.5, 0.7)
    ordinary, tall = (patch_labels([Picture("sea", "photo", (each,))], 16)[0, 0] > 0
                      for each in (plain, replace(plain, stretch=1.5)))  # fmt: skip
    assert tall.any(1).sum() > ordinary.any(1).sum()
    assert tall.any(0).sum() < ordinary.any(0).sum()
    assert tall.any(1).nonzero()[0].max() == ordinary.any(1).nonzero()[0].max()
