"""Other masks of the same size."""

import torch

from cns_lightning.neurons.controls import all_neurons, largest_neurons, random_neurons
from cns_lightning.neurons.mask import NeuronMask


def test_random_neurons_keep_the_count_of_every_row() -> None:
    generator = torch.Generator().manual_seed(2)
    bools = {"a": torch.rand(11, 13, generator=generator) < 0.2, "b": torch.rand(5, 30, generator=generator) < 0.05}
    mask = NeuronMask.from_bools(bools)
    drawn = random_neurons(mask, 0)
    for name, rows in drawn.bools().items():
        assert torch.equal(rows.sum(1), bools[name].sum(1))
    assert drawn == random_neurons(mask, 0)
    assert drawn != random_neurons(mask, 1)
    # No stage of one seed draws what another stage of another seed does.
    assert len({str(random_neurons(mask, seed, stage).bools()) for seed in range(3) for stage in range(3)}) == 9
    assert drawn != mask


def test_the_largest_of_a_matrix_ties_by_lower_index() -> None:
    mask = NeuronMask.from_bools({"a": torch.tensor([[True, False, True], [False, False, True]])})
    scores = {"a": torch.tensor([[0.1, 0.5, 0.2], [0.5, 0.2, 0.2]])}
    expected = [[False, True, True], [True, False, False]]
    assert largest_neurons(mask, scores).bools()["a"].tolist() == expected
    assert all_neurons(mask).count() == 6
