"""Shares, overlap, places and room, by hand on two small matrices."""

import pytest
import torch

from cns_lightning.analysis.concepts import ALL, block_of, capacity, overlap, places, shares, shares_of_blocks
from cns_lightning.neurons.mask import NeuronMask

KEYS = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight"
VALUES = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"


def mask(keys: list[list[int]], values: list[list[int]]) -> NeuronMask:
    return NeuronMask.from_bools({KEYS: torch.tensor(keys).bool(), VALUES: torch.tensor(values).bool()})


MASKS = {
    "<a>": mask([[1, 1, 0, 0]], [[1, 0], [0, 0]]),
    "<b>": mask([[1, 0, 1, 0]], [[1, 0], [0, 0]]),
    "<c>": mask([[0, 0, 0, 1]], [[0, 0], [1, 1]]),
}
CLASSES = {"<a>": "cat", "<b>": "cat", "<c>": "dog"}


def test_shares_count_every_neuron_once() -> None:
    rows = shares(MASKS, {"unet": 32})
    assert [row["concept"] for row in rows] == ["<a>", "<b>", "<c>", ALL]
    assert [row["neurons"] for row in rows] == [3, 3, 3, 7]
    assert [row["key_value_share"] for row in rows] == [3 / 8] * 3 + [7 / 8]
    assert rows[3]["unet_share"] == 7 / 32


def test_overlap_tells_pairs_of_one_class_from_others() -> None:
    found = overlap(MASKS, CLASSES)
    assert [(row["one"], row["other"], row["same_class"], row["iou"]) for row in found["pairs"]] == [
        ("<a>", "<b>", True, 0.5), ("<a>", "<c>", False, 0.0), ("<b>", "<c>", False, 0.0),
    ]  # fmt: skip
    assert (found["same_class"], found["different_class"]) == (0.5, 0.0)
    assert found["mean_pairwise"] == pytest.approx(1 / 6)
    assert found["joint"] == 0.0
    # Of rows of 4, 2 and 2 columns with 2, 1 and 0 neurons each: 2 * 2 / 4 + 1 * 1 / 2 are shared by chance.
    assert found["pairs"][0]["chance"] == pytest.approx(1.5 / (6 - 1.5))
    assert overlap({"<a>": MASKS["<a>"]}, CLASSES)["mean_pairwise"] is None


def test_places_add_up_to_the_whole() -> None:
    rows = places(MASKS)
    assert [(row["block"], row["projection"], row["neurons"], row["share"]) for row in rows[:2]] == [
        ("down_blocks.0", "keys", 2, 0.5), ("mid_block", "values", 1, 0.25),
    ]  # fmt: skip
    assert shares_of_blocks(rows, "<a>") == pytest.approx(
        {("down_blocks.0", "keys"): 2 / 3, ("mid_block", "values"): 1 / 3}
    )
    assert block_of("up_blocks.2.attentions.0.x") == "up_blocks.2"


def test_room_shrinks_with_every_concept() -> None:
    rows = capacity(MASKS)
    assert [row["untouched"] for row in rows] == [5 / 8, 4 / 8, 1 / 8]
    assert [row["fullest_row"] for row in rows] == [0.5, 0.25, 0.0]
    assert [row["new"] for row in rows] == pytest.approx([1.0, 1 / 3, 1.0])
