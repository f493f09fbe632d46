"""The garbage collector is held back inside, and at work again afterwards, whatever happened."""

import gc
from collections.abc import Iterator

import pytest

from cns_lightning.cli.collection import collection_held_back


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Lets the other tests' objects be collected again."""
    yield
    gc.unfreeze()
    gc.enable()


def test_what_came_to_be_inside_is_left_out_of_later_collections() -> None:
    before = gc.get_freeze_count()
    with collection_held_back():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
        with collection_held_back():
            pass
        assert not gc.isenabled(), "the outer one counts"
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_it_is_at_work_again_after_an_error() -> None:
    with pytest.raises(ValueError, match="inside"), collection_held_back():
        raise ValueError("inside")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    before = gc.get_freeze_count()
    with collection_held_back():
        pass
    assert not gc.isenabled()
    assert gc.get_freeze_count() == before
