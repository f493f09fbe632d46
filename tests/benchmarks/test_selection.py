import argparse

import pytest
import torch

from benchmarks import selection
from cns_lightning.neurons.selector import NeuronSelector

ARGUMENTS = argparse.Namespace(shapes="tiny", size=64, device="cpu", prompts=4, hooked=3, steps=5)


def test_hooks_in_the_unet_select_the_same_neurons() -> None:
    found = selection.measure(ARGUMENTS)
    assert found["seconds"] > 0
    assert found["prompts"] == 4
    assert "3 prompts" in selection.document(ARGUMENTS, selection.machine(torch.device("cpu")), found)


def test_a_selection_that_differs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = NeuronSelector.norms
    monkeypatch.setattr(NeuronSelector, "norms", lambda *given: right(*given).flip(0))
    with pytest.raises(RuntimeError, match="different neurons"):
        selection.measure(ARGUMENTS)
