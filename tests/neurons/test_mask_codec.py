"""Packed masks: nothing is lost, the form is the documented one, damage is refused, sizes are near the entropy."""

import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cns_lightning.neurons import mask_codec
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.mask_codec import pack_mask, unpack_mask

# Two widths, neither rows nor matrices of whole bytes, one matrix of one row.
SHAPES = {"b.weight": (30, 5), "a.weight": (70, 13), "c.weight": (41, 5), "d.weight": (1, 13)}


def random_mask(seed: int, share: float, shapes: dict[str, tuple[int, int]] = SHAPES) -> NeuronMask:
    generator = torch.Generator().manual_seed(seed)
    uneven = {width: torch.rand(width, generator=generator) * 2 for _, width in shapes.values()}
    return NeuronMask.from_bools(
        {name: torch.rand(shape, generator=generator) < share * uneven[shape[1]] for name, shape in shapes.items()}
    )


def read_slowly(tensors: dict[str, Tensor], about: dict[str, Any]) -> set[tuple[str, int, int]]:
    """Reads a packed mask byte by byte, by what the module's docstring says; returns name, row and column of each."""
    places = []
    columns = tensors["columns"].tolist()
    for width in sorted({shape[1] for shape in about["shapes"].values()}):
        order, columns = columns[:width], columns[width:]
        names = sorted(name for name, shape in about["shapes"].items() if shape[1] == width)
        places += [(name, row, column) for column in order for name in names for row in range(about["shapes"][name][0])]
    marked, place = set(), 0
    for byte in zlib.decompress(bytes(tensors["packed"].tolist())):
        place += byte
        if byte < 255:
            marked.add(places[place])
            place += 1
    return set(places) - marked if about["inverted"] else marked


@pytest.mark.parametrize("share", [0.0, 0.001, 0.06, 0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost(share: float, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = random_mask(seed, share)
    monkeypatch.setattr(mask_codec, "_BAND", 3)
    tensors, about = pack_mask(mask)
    monkeypatch.setattr(mask_codec, "_CHUNK", 7)
    back = unpack_mask(tensors, about)
    assert (back.counts(), back.count()) == (mask.counts(), mask.count())
    assert all(torch.equal(back.indices(name), mask.indices(name)) for name in mask.names)
    assert back == mask
    # As with matrices of more rows than can be sorted quickly.
    monkeypatch.setattr(mask_codec, "_MOST_ROWS", 0)
    assert unpack_mask(tensors, about) == mask
    found = {(name, *divmod(place, SHAPES[name][1])) for name in mask.names for place in mask.indices(name).tolist()}
    assert read_slowly(tensors, about) == found


def test_full_empty_and_no_matrices_at_all() -> None:
    full = NeuronMask.from_bools({name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()})
    for mask in (full, NeuronMask.empty(SHAPES), NeuronMask({}, {})):
        tensors, about = pack_mask(mask)
        assert about["bytes"] == 0
        assert unpack_mask(tensors, about) == mask


def test_the_example_of_the_docstring() -> None:
    bools = torch.tensor([[0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]], dtype=torch.bool)
    tensors, about = pack_mask(NeuronMask.from_bools({"w": bools}))
    assert tensors["columns"].tolist() == [1, 3, 0, 2]
    assert list(zlib.decompress(bytes(tensors["packed"].tolist()))) == [0, 0, 1, 1, 1]
    assert about == {"codec": "column-gaps-zlib", "shapes": {"w": [4, 4]}, "inverted": False, "marked": 5, "bytes": 5}


@pytest.mark.parametrize("gap", [253, 254, 255, 256, 509, 510, 511, 100_000])
def test_long_gaps(gap: int) -> None:
    bools = torch.zeros(gap + 2, 1, dtype=torch.bool)
    bools[gap] = True
    mask = NeuronMask.from_bools({"w": bools})
    assert unpack_mask(*pack_mask(mask)) == mask


def test_size_is_near_the_entropy_of_the_columns() -> None:
    mask = random_mask(0, 0.06, {f"{number}.weight": (640, 768) for number in range(4)})
    rows = np.concatenate([mask.flat(name).reshape(-1, 768) for name in mask.names])
    share = rows.mean(0).clip(1e-9, 1 - 1e-9)
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)).sum() * len(rows) / 8
    assert len(pack_mask(mask)[0]["packed"]) < 1.06 * entropy


def _changed(mask: NeuronMask, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, about = pack_mask(mask)
    return tensors, {**about, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codec": "other"}, "unknown codec other"),
        ({"bytes": 10**9}, "claims 1000000000 bytes"),
        ({"bytes": 0}, "claims 0 bytes"),
        ({"marked": -1}, "claims"),
        ({"shapes": {"w": [2**20, 2**20]}}, "claims"),
        ({"shapes": {"w": [0, 4]}}, "without entries"),
        ({"shapes": [1, 2]}, "damaged"),
        ({"shapes": {"w": 4}}, "damaged"),
        ({"marked": None}, "damaged"),
        ({"shapes": {name: [shape[0], 5] for name, shape in SHAPES.items()}}, "columns in order|runs over"),
    ],
)
def test_a_header_that_lies_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unpack_mask(*_changed(random_mask(0, 0.2), **changes))


def test_a_damaged_stream_is_refused() -> None:
    mask = random_mask(0, 0.2)
    tensors, about = pack_mask(mask)
    packed, columns = tensors["packed"], tensors["columns"]
    for damaged in (packed[:-1], packed[:0], torch.cat([packed, packed[:1]]), packed.flip(0), packed.float()):
        with pytest.raises(ValueError, match="packed"):
            unpack_mask({**tensors, "packed": damaged}, about)
    for damaged in (columns.clamp_min(1), columns + 1, columns[1:]):
        with pytest.raises(ValueError, match="columns"):
            unpack_mask({**tensors, "columns": damaged}, about)
    # Well packed, and still not what the header says: over the end, and one entry too few.
    for gaps, claim, words in (([255] * 6, 2, "runs over"), ([0, 255, 0], 3, "marks 2 entries")):
        stream = torch.frombuffer(bytearray(zlib.compress(bytes(gaps))), dtype=torch.uint8)
        with pytest.raises(ValueError, match=words):
            unpack_mask({**tensors, "packed": stream}, about | {"marked": claim, "bytes": len(gaps)})


def test_a_stream_that_swells_is_not_followed() -> None:
    tensors, about = pack_mask(random_mask(0, 0.2))
    bomb = torch.frombuffer(bytearray(zlib.compress(bytes(200_000_000), 9)), dtype=torch.uint8)
    tracemalloc.start()
    with pytest.raises(ValueError, match="does not give"):
        unpack_mask({**tensors, "packed": bomb}, about)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
