"""What the automatic threshold of the vote is calibrated on."""

from collections import Counter

import pytest

from cns_lightning.callbacks.importance_scoring import REFERENCE_CLASSES, ImportanceScoring, stand_ins
from cns_lightning.errors import UserError
from cns_lightning.sequences.sequence import KINDS


def test_every_kind_stands_in_as_often_under_names_of_its_own() -> None:
    made_up = stand_ins(REFERENCE_CLASSES, ["wug", "dax", "fep", "zop"])
    assert Counter(each.kind for each in made_up) == dict.fromkeys(KINDS, 3)
    assert len({(each.kind, each.token) for each in made_up}) == len(made_up)
    assert [each.token for each in stand_ins({"animal": ["cat", "dog"]}, [])] == ["cat", "dog", "cat"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"animals": ["cat"]}, "has the unknown kind animals"), ({"animal": []}, "has no class word for animal")],
)
def test_classes_of_unknown_kinds_are_refused(wrong: dict[str, list[str]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ImportanceScoring(reference_classes=wrong).setup(None, None, "fit")  # type: ignore[arg-type]
