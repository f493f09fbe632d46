"""Selection without a Trainer: the same masks as in a run, and what the automatic threshold is calibrated on."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from cns_lightning.callbacks.importance_scoring import ImportanceScoring
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.errors import UserError
from cns_lightning.neurons.selector import REFERENCE_CLASSES, NeuronSelector, stand_ins
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.sequences.calibration import read_calibration_prompts
from cns_lightning.sequences.sequence import KINDS
from tests.runs.learning import learn


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


def test_general_neurons_are_those_of_a_run(tiny_base_model: Path, tmp_path: Path) -> None:
    registry = NeuronRegistry.load(learn("cns", tiny_base_model, tmp_path) / "registry")
    base = BaseModel.load(str(tiny_base_model))
    weights = {name: each.weight.detach() for name, each in key_value_projections(base.unet).items()}
    prompts = read_calibration_prompts("stable_diffusion")
    mask, facts = NeuronSelector(base, weights).general(prompts, registry.rare_words)
    assert facts.items() <= registry.general_metadata().items()
    assert mask.count() > 0
    assert mask.to_tensors().keys() == registry.general_mask().to_tensors().keys()
    kept = registry.general_mask().to_tensors()
    assert all(torch.equal(value, kept[name]) for name, value in mask.to_tensors().items())
