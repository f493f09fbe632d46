"""What every method promises, whatever it is: one suite over all that are found in configs/methods."""

import shutil
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.projections import read_weights
from cns_lightning.methods.base import Method, ParameterGroup
from cns_lightning.methods.discovery import method_configs
from cns_lightning.module import ContinualPersonalization
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.training.optimizer import stage_optimizer
from tests.runs.learning import arguments, learn, write_sequence
from tests.runs.processes import in_two_processes
from tests.runs.stop_at import CALLBACK, StopAt

METHODS = list(method_configs())
LEARNED = ("registry/000-new1.safetensors", "registry/001-new2.safetensors")
# Of float32 sums in another order, through 2 x 2 steps of AdamW, and of what is rounded to half precision.
TOLERANCE = 2e-3


@dataclass
class Learned:
    """A run of two concepts.

    Attributes:
        run: run folder.
        held: weights that the model held after the last stage, float32.
        method: method of the run, with its settings.
    """

    run: Path
    held: dict[str, Tensor]
    method: Method


@pytest.fixture(scope="module", params=METHODS)
def learned(request: pytest.FixtureRequest, tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    held: dict[str, Tensor] = {}
    plain = ContinualPersonalization.finish_stage

    def finish(module: ContinualPersonalization) -> None:
        plain(module)
        held.update({name: each.weight.detach().clone() for name, each in module.projections.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContinualPersonalization, "finish_stage", finish)
        run = learn(request.param, tiny_base_model, tmp_path_factory.mktemp(request.param))
    kind, settings = RunConfig.read(RunFolder(run)).method()
    return Learned(run, held, kind(**settings))


def test_a_stage_moves_only_what_the_method_names(learned: Learned, tiny_base_model: Path) -> None:
    base, now_pipe, earlier = (
        BaseModel.load(str(tiny_base_model)), load_pipeline(learned.run), load_pipeline(learned.run, upto="<new1>"),
    )  # fmt: skip
    movable = learned.method.projections(base)
    kept = dict(base.unet.named_parameters())
    kept |= {f"text_encoder.{name}": weight for name, weight in base.text_encoders[0].named_parameters()}
    now = dict(now_pipe.unet.named_parameters())  # type: ignore[attr-defined]
    now |= {f"text_encoder.{name}": weight for name, weight in now_pipe.text_encoder.named_parameters()}  # type: ignore[attr-defined]
    for name, weight in now.items():
        if name not in movable and "token_embedding" not in name:
            assert torch.equal(weight, kept[name]), name
    rows = base.vocabulary_sizes[0]
    pipes: list[Any] = [now_pipe, earlier]
    tables = [pipe.text_encoder.get_input_embeddings().weight for pipe in pipes]
    assert torch.equal(tables[0][:rows], base.embedding_table(0).weight)
    assert torch.equal(tables[0][rows], tables[1][rows]), "the second stage moved the first concept's token"


def test_what_is_kept_restores_the_model_bit_for_bit(learned: Learned) -> None:
    pipe: Any = load_pipeline(learned.run)
    weights = dict(pipe.unet.named_parameters())
    weights |= {f"text_encoder.{name}": weight for name, weight in pipe.text_encoder.named_parameters()}
    assert learned.held
    assert all(torch.equal(weights[name], weight) for name, weight in learned.held.items())
    assert main(["concepts", "--run", str(learned.run), "--verify"]) == 0


def test_several_concepts_compose_to_what_their_records_say(learned: Learned, tiny_base_model: Path) -> None:
    base, registry = BaseModel.load(str(tiny_base_model)), NeuronRegistry.load(learned.run / "registry")
    pretrained = read_weights(learned.method.projections(base))
    composed = {name: weight.clone() for name, weight in pretrained.items()}
    if learned.method.fuses:
        registry.apply_tokens(base.pipeline())
        composed = learned.method.fuse(registry.records, base, pretrained)
    else:
        for record in registry.records:
            record.add_to(composed)
    assert composed.keys() == learned.held.keys()
    # A fusion that searches, as Mix-of-Show's, ends elsewhere in the last bits when a sum is ordered otherwise.
    tolerance = 1e-4 if learned.method.fuses else 0
    assert all(torch.allclose(composed[name], weight, rtol=0, atol=tolerance) for name, weight in learned.held.items())


def test_a_concept_that_is_undone_and_learned_again_is_the_same(
    learned: Learned, tiny_base_model: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(learned.run, tmp_path / "run")
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    sequence, name = learned.run.parent / "sequence" / "sequence.yaml", method_name(learned)
    assert main(arguments(tiny_base_model, sequence, run, method=name, steps=2)) == 0
    for path in (*LEARNED, "registry/registry.json"):
        assert (run / path).read_bytes() == (learned.run / path).read_bytes(), path


def method_name(learned: Learned) -> str:
    return type(learned.method).__module__.rpartition(".")[-1]


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(learned: Learned, tiny_base_model: Path, tmp_path: Path) -> None:
    sequence, name = learned.run.parent / "sequence" / "sequence.yaml", method_name(learned)
    done = in_two_processes(tiny_base_model, sequence, tmp_path / "two", "0:0:SIGTERM", method=name)
    assert done.returncode == 0, done.stderr
    whole = arguments(tiny_base_model, sequence, tmp_path / "one", "--data.batch_size", "4", method=name, steps=4)
    assert main(whole) == 0
    one, two = (NeuronRegistry.load(tmp_path / folder / "registry").records for folder in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        assert (first.mask is None) == (second.mask is None)
        if first.mask is not None and second.mask is not None:
            theirs = second.mask.to_tensors()
            assert all(torch.equal(value, theirs[key]) for key, value in first.mask.to_tensors().items())
        for mine, other in zip(kept(first), kept(second), strict=True):
            assert torch.allclose(mine.float(), other.float(), rtol=0, atol=TOLERANCE)
    # Pictures of the class are shared out among the ranks, and rank 0 fuses.
    assert (tmp_path / "two" / "fused" / "after-001.safetensors").exists() == learned.method.fuses
    assert main(["concepts", "--run", str(tmp_path / "two"), "--verify"]) == 0


def kept(record: ConceptRecord) -> list[Tensor]:
    """Returns every tensor of a record but its mask, in one order."""
    factors = [each for name in sorted(record.factors) for each in record.factors[name]]
    return [record.values, *record.embeddings, *factors, *(record.extra[name] for name in sorted(record.extra))]


@pytest.mark.parametrize("method", METHODS)
def test_a_concept_may_have_learning_rates_of_its_own(
    method: str, tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = yaml.safe_load(method_configs()[method].read_text("utf-8"))["model"]["method"]["class_path"]
    kind = getattr(import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
    names = [name for name in signature(kind).parameters if name.endswith("learning_rate")]
    rates = {name: 0.001 * (number + 1) for number, name in enumerate(names)}
    sequence = write_sequence(tmp_path, ["cat"])
    content = yaml.safe_load(sequence.read_text("utf-8"))
    content["concepts"][0]["settings"] = rates
    sequence.write_text(yaml.safe_dump(content), "utf-8")
    found: dict[str, float] = {}

    def noted(groups: list[ParameterGroup], own: Any, is_fused: bool) -> Any:
        found.update({group.name: group.learning_rate for group in groups})
        return stage_optimizer(groups, own, is_fused)

    monkeypatch.setattr("cns_lightning.module.stage_optimizer", noted)
    assert main(arguments(tiny_base_model, sequence, tmp_path / "run", "--samples.pictures", "0", method=method)) == 0
    if "token_learning_rate" in rates:
        assert found.pop("token") == rates.pop("token_learning_rate")
    assert set(rates.values()) <= set(found.values())


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_learns(method: str, tiny_base_model: Path, tmp_path: Path) -> None:
    run = learn(
        method, tiny_base_model, tmp_path, "--trainer.precision", "bf16-mixed", "--model.base_dtype", "bfloat16"
    )
    for record in NeuronRegistry.load(run / "registry").records:
        assert all(value.isfinite().all() for value in kept(record))
        assert any(value.abs().max() > 0 for value in kept(record) if len(value))
    weights = [*load_pipeline(run).unet.parameters()]  # type: ignore[attr-defined]
    assert all(weight.isfinite().all() for weight in weights)


@pytest.mark.parametrize("method", METHODS)
def test_appended_concept_interrupted_ends_as_learned_in_one_go(
    method: str, tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat", "dog"])
    whole, other = (arguments(tiny_base_model, sequence, tmp_path / name, CALLBACK, method=method) for name in "ab")
    assert main(whole) == 0
    content = sequence.read_text("utf-8")
    both = yaml.safe_load(content)
    sequence.write_text(yaml.safe_dump({**both, "concepts": both["concepts"][:1]}), "utf-8")
    assert main(other) == 0
    sequence.write_text(content, "utf-8")
    monkeypatch.setattr(StopAt, "step", 5)
    with pytest.raises(SystemExit):
        main(other)
    monkeypatch.setattr(StopAt, "step", None)
    assert main(other) == 0
    for name in ("registry/registry.json", "metrics.csv", "samples/stage-1.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
