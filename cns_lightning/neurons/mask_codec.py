"""Masks as they are stored: the gaps between neurons along columns, compressed to about their entropy.

Importance is |W_ij| * ||X_j||, so a concept's neurons crowd in the columns of its active features, the same ones in
every matrix. Matrices of one width stand on top of each other, in the order of their names; their columns are taken in
the order of how many neurons they hold, each from top to bottom:

    . 1 . .
    . 1 . 1      columns 1, 3, 0, 2      1 1 . 1  . 1 . 1  . . . .  . . . .      gaps 0, 0, 1, 1, 1
    . . . .
    . 1 . 1

A gap is the number of entries before the next neuron. A byte below 255 ends one; a byte of 255 adds 255 to it. The
bytes are Huffman-coded by zlib, whose tables follow the columns as they get sparser. Where more than half of the
entries are neurons, those that are not take their place. Widths follow each other in ascending order, in one stream.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cns_lightning.neurons.mask import NeuronMask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

CODEC = "column-gaps-zlib"
PACKED = "packed"
COLUMNS = "columns"
MOST_ENTRIES = 2**32
"""Entries that a header may claim: twelve times as many as SDXL's key and value weights have."""

_LONG = 255
_BAND = 64
_CHUNK = 1 << 20
_MOST_ROWS = 1 << 16
"""Up to which rows are sorted as numbers of 16 bits, for which numpy has a radix sort."""

_Group = tuple[int, int, list[str]]
"""Width, rows and names of the matrices of one width."""


def pack_mask(mask: NeuronMask) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Compresses a mask.

    Returns:
        ``packed``, the compressed bytes, uint8, and ``columns``, the order of the columns of every width, int32; and
        what `unpack_mask` must be told besides: codec, shapes, whether ``packed`` marks neurons or all others
        (``inverted``), how many it marks (``marked``), and how many bytes come out of it (``bytes``).
    """
    is_inverted = 2 * mask.count() > mask.total()
    # Huffman codes alone: there is nothing to find twice, and looking for it costs time and room.
    compressor = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, zlib.Z_HUFFMAN_ONLY)
    orders, parts, size, first, last = [], [], 0, 0, -1
    for width, rows, names in _groups(mask.shapes):
        stacked = np.concatenate([mask.flat(name).reshape(-1, width) for name in names]) ^ is_inverted
        order = np.argsort(-np.count_nonzero(stacked, axis=0), kind="stable").astype(np.int32)
        orders.append(order)
        for start in range(0, width, _BAND):
            band = np.ascontiguousarray(stacked[:, order[start : start + _BAND]].T)
            places = np.flatnonzero(band) + first + start * rows
            gaps = _bytes_of(np.diff(places, prepend=last) - 1)
            last, size = (int(places[-1]) if len(places) else last), size + len(gaps)
            parts.append(compressor.compress(gaps.tobytes()))
        first += width * rows
    packed = b"".join([*parts, compressor.flush()])
    columns = np.concatenate(orders) if orders else np.zeros(0, np.int32)
    tensors = {
        PACKED: torch.frombuffer(bytearray(packed), dtype=torch.uint8),
        COLUMNS: torch.from_numpy(columns),
    }
    marked = mask.total() - mask.count() if is_inverted else mask.count()
    shapes = {name: list(shape) for name, shape in mask.shapes.items()}
    return tensors, {"codec": CODEC, "shapes": shapes, "inverted": is_inverted, "marked": marked, "bytes": size}


def unpack_mask(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> NeuronMask:
    """Takes what `pack_mask` returned; never makes more of it than the header says, and that within bounds.

    Raises:
        ValueError: if tensors and header do not fit each other, the header claims what no mask has, or the codec is
            unknown.
    """
    shapes, is_inverted, marked, size = _checked_header(about)
    total = sum(math.prod(shape) for shape in shapes.values())
    if not 0 <= marked <= total <= MOST_ENTRIES or not marked <= size <= marked + total // _LONG:
        raise ValueError(f"its mask claims {size} bytes for {marked} of {total} entries")
    gaps = _decompressed(_array(tensors, PACKED, torch.uint8).tobytes(), size)
    groups = list(_groups(shapes))
    orders = _split_orders(_array(tensors, COLUMNS, torch.int32), groups)
    places = _places_of(gaps, marked, total)
    # Of a sparse mask its indices take less room than a byte an entry, which is what is worked in below.
    if not is_inverted and 8 * marked <= total and all(rows <= _MOST_ROWS for _, rows, _ in groups):
        return NeuronMask.from_indices(shapes, _sorted(places, groups, orders, shapes))
    entries = np.zeros(total, np.bool_)
    for start in range(0, len(places), _CHUNK):
        _mark(entries, places[start : start + _CHUNK], groups, orders)
    if is_inverted:
        np.logical_not(entries, out=entries)
    bits, first = {}, 0
    for _, _, names in groups:
        for name in names:
            end = first + math.prod(shapes[name])
            bits[name] = np.packbits(entries[first:end], bitorder="little")
            first = end
    return NeuronMask(shapes, bits)


def _groups(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[_Group]:
    """Yields the matrices of every width, narrow ones first, names in order."""
    by_width: dict[int, list[str]] = {}
    for name in sorted(shapes):
        by_width.setdefault(shapes[name][-1], []).append(name)
    for width, names in sorted(by_width.items()):
        yield width, sum(math.prod(shapes[name][:-1]) for name in names), names


def _bytes_of(gaps: np.ndarray) -> np.ndarray:
    longs, rest = np.divmod(gaps, _LONG)
    found = np.full(len(gaps) + int(longs.sum()), _LONG, np.uint8)
    found[np.cumsum(longs + 1) - 1] = rest
    return found


def _checked_header(about: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], bool, int, int]:
    try:
        codec = about["codec"]
        if codec != CODEC:
            raise ValueError(f"its mask is packed by the unknown codec {codec}")
        shapes = {name: tuple(int(length) for length in shape) for name, shape in about["shapes"].items()}
        marked, size = int(about["marked"]), int(about["bytes"])
    except (TypeError, AttributeError) as error:
        raise ValueError(f"the header of its mask is damaged ({error})") from error
    if any(not shape or min(shape) < 1 for shape in shapes.values()):
        raise ValueError("its mask is of matrices without entries")
    return shapes, bool(about["inverted"]), marked, size


def _array(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> np.ndarray:
    tensor = tensors[name]
    if tensor.dtype != dtype or tensor.dim() != 1:
        raise ValueError(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}")
    return tensor.cpu().numpy()


def _decompressed(data: bytes, size: int) -> np.ndarray:
    decompressor = zlib.decompressobj()
    try:
        # One byte more than there may be shows a stream that goes on, and no more than that is ever made.
        found = decompressor.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"its packed mask is damaged ({error})") from error
    if len(found) != size or not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"its packed mask does not give the {size} bytes that its header names")
    return np.frombuffer(found, np.uint8)


def _split_orders(columns: np.ndarray, groups: list[_Group]) -> list[np.ndarray]:
    widths = [width for width, _, _ in groups]
    if len(columns) != sum(widths):
        raise ValueError(f"its mask has {len(columns)} columns in order instead of {sum(widths)}")
    orders = np.split(columns, np.cumsum(widths)[:-1]) if widths else []
    for order, width in zip(orders, widths, strict=True):
        if not np.array_equal(np.sort(order), np.arange(width)):
            raise ValueError("the order of its mask's columns names one twice")
    return orders


def _places_of(gaps: np.ndarray, marked: int, total: int) -> np.ndarray:
    """Returns the places that the gaps mark, in the order of the stream, ascending."""
    # In parts, so that what is worked in stays small; in narrow numbers where these cannot run over.
    kind = np.int32 if total + (_LONG + 1) * _CHUNK < 2**31 else np.int64
    found, last = [np.zeros(0, kind)], -1
    for start in range(0, len(gaps), _CHUNK):
        part = gaps[start : start + _CHUNK]
        ends = part != _LONG
        places = np.cumsum(part + ends.astype(kind), dtype=kind) + kind(last)
        last = int(places[-1])
        found.append(places[ends])
        if last >= total:
            raise ValueError("its packed mask runs over its matrices")
    places = np.concatenate(found)
    if len(places) != marked:
        raise ValueError(f"its packed mask marks {len(places)} entries, its header says {marked}")
    return places


def _sorted(
    places: np.ndarray, groups: list[_Group], orders: list[np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Returns the flat indices of every matrix's entries, ascending, int64, from their places in the stream.

    A radix sort by row, after the columns were put in order: several times as fast as to mark all entries and look for
    those that are marked.
    """
    found, first = {}, 0
    for (width, rows, names), order in zip(groups, orders, strict=True):
        begins = first + np.arange(width + 1) * rows
        bounds = np.searchsorted(places, begins.astype(places.dtype))
        ranks = np.argsort(order)
        row = np.concatenate([
            (places[bounds[rank] : bounds[rank + 1]] - places.dtype.type(begins[rank])).astype(np.uint16)
            for rank in ranks
        ])  # fmt: skip
        column = np.repeat(np.arange(width), np.diff(bounds)[ranks])
        flat = (row * np.int64(width) + column)[np.argsort(row, kind="stable")]
        ends = np.cumsum([math.prod(shapes[name]) for name in names])
        for name, part, end in zip(names, np.split(flat, np.searchsorted(flat, ends[:-1])), ends, strict=True):
            found[name] = part - (end - math.prod(shapes[name]))
        first += width * rows
    return found


def _mark(entries: np.ndarray, places: np.ndarray, groups: list[_Group], orders: list[np.ndarray]) -> None:
    first = 0
    for (width, rows, _), order in zip(groups, orders, strict=True):
        begin, end = np.searchsorted(places, [first, first + width * rows])
        rank, row = np.divmod(places[begin:end] - places.dtype.type(first), places.dtype.type(rows))
        entries[first + row * places.dtype.type(width) + order[rank]] = True
        first += width * rows
