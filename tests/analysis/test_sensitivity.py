"""What the order of concepts changes: the words their tokens start from, and through them the neurons."""

from collections.abc import Mapping

import torch

from cns_lightning.analysis.sensitivity import ORDERS, of_orders

WORDS = ["tulk", "vzz", "ruv", "wug"]


def test_a_concept_has_other_neurons_only_where_its_word_is_another() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {"keys": torch.randn(16, 40, generator=generator)}
    norms = {word: torch.rand(40, generator=generator) + 0.1 for word in WORDS}
    asked: list[dict[str, str]] = []

    def concept_norms(starts: Mapping[str, str]) -> torch.Tensor:
        asked.append(dict(starts))
        return torch.stack([norms[word] for word in starts.values()])

    starts = {"<a>": "tulk", "<b>": "vzz", "<c>": "ruv"}
    none = {"keys": torch.zeros(16, 40, dtype=torch.bool)}
    rows = of_orders(weights, concept_norms, starts, WORDS, none, 0.3)
    assert [row["value"] for row in rows] == list(range(1, ORDERS + 1))
    assert asked[0] == starts
    for row, other in zip(rows, asked[1:], strict=True):
        assert list(other) == list(starts)
        assert set(other.values()) == set(starts.values()), "the first words, in another order"
        same = sum(starts[token] == other[token] for token in starts)
        assert (row["concept_iou"] == 1) == (same == 3)
        assert same / 3 <= row["concept_iou"] <= 1
    assert any(row["concept_iou"] < 1 for row in rows)
