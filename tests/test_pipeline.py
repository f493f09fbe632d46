"""A run folder becomes a plain diffusers pipeline with exactly the weights of its registry."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import write_weights
from cns_lightning.diffusion.sampling import generate
from cns_lightning.errors import UserError
from cns_lightning.miniature.tiny import tiny_base_model as write_tiny_base_model
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.pipeline import RunModel, load_pipeline
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.folder import RunFolder
from tests.runs.learning import learn


def learned(base: BaseModel, token: str, seed: int) -> ConceptRecord:
    """Makes up a concept: random neurons, values and embedding."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: each.weight.shape for name, each in key_value_projections(base.unet).items()}
    mask = NeuronMask.from_bools({name: torch.rand(shape, generator=generator) < 0.3 for name, shape in shapes.items()})
    return ConceptRecord(
        token=token,
        class_word="cat",
        kind="animal",
        prompt=f"photo of a {token} cat",
        mask=mask,
        values=torch.randn(mask.count(), generator=generator).half(),
        embeddings=[torch.randn(1, each.config.hidden_size, generator=generator) for each in base.text_encoders],
    )


def pretrained(base: BaseModel) -> dict[str, Tensor]:
    return {name: each.weight.detach() for name, each in key_value_projections(base.unet).items()}


@pytest.fixture(params=["tiny_base_model", "tiny_xl_base_model"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Returns a run folder of two concepts, on both kinds of base model."""
    return write_run(str(request.getfixturevalue(request.param)), tmp_path)


def write_run(source: str, tmp_path: Path) -> Path:
    base = BaseModel.load(source)
    registry = NeuronRegistry.create(tmp_path / "run" / "registry", source, base.fingerprint(), pretrained(base))
    registry.add(learned(base, "<new1>", 1))
    registry.add(learned(base, "<new2>", 2))
    return tmp_path / "run"


@pytest.mark.parametrize("upto", ["<new1>", None])
def test_pipeline_has_the_weights_and_tokens_of_the_registry(run: Path, upto: str | None) -> None:
    registry = NeuronRegistry.load(run / "registry")
    expected = registry.weights(upto)
    pipe = load_pipeline(run, upto)
    assert type(pipe).__module__.startswith("diffusers.")
    parameters = dict(pipe.unet.named_parameters())
    assert all(torch.equal(parameters[name], weight) for name, weight in expected.items())
    untouched = dict(BaseModel.load(registry.base_model).unet.named_parameters())
    assert all(torch.equal(parameters[name], weight) for name, weight in untouched.items() if name not in expected)
    for token in ("<new1>", "<new2>"):
        is_known = upto is None or token == upto
        assert (token in pipe.tokenizer.get_vocab()) == is_known
        if is_known:
            row = pipe.tokenizer.convert_tokens_to_ids(token)
            assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[row], registry.embedding(token)[0])


def test_concepts_change_the_pictures(run: Path) -> None:
    base = BaseModel.load(NeuronRegistry.load(run / "registry").base_model).pipeline()
    prompts = ["a photo of a <new1> cat"]
    one, all_of_them, none = (
        generate(pipe, prompts, [0], steps=2)[0].tobytes()
        for pipe in (load_pipeline(run, "<new1>"), load_pipeline(run), base)
    )
    assert len({one, all_of_them, none}) == 3


def test_precision_is_as_asked_and_the_run_is_still_recognised(run: Path) -> None:
    pipe = load_pipeline(run, dtype=torch.bfloat16)
    assert {part.dtype for part in (pipe.unet, pipe.vae, pipe.text_encoder)} == {torch.bfloat16}
    expected = NeuronRegistry.load(run / "registry").weights()
    parameters = dict(pipe.unet.named_parameters())
    assert all(torch.equal(parameters[name], weight.bfloat16()) for name, weight in expected.items())
    assert generate(pipe, ["a <new1> cat"], [0], steps=2)[0].size == (32, 32)


def test_run_without_concepts_gives_the_base_model(tiny_base_model: Path, tmp_path: Path) -> None:
    base = BaseModel.load(str(tiny_base_model))
    registry = NeuronRegistry.create(tmp_path / "registry", str(tiny_base_model), base.fingerprint(), pretrained(base))
    registry.set_general(NeuronMask.from_bools({name: each > 0 for name, each in pretrained(base).items()}), "key")
    pipe = load_pipeline(str(tmp_path))
    assert all(torch.equal(value, base.unet.state_dict()[name]) for name, value in pipe.unet.state_dict().items())
    assert len(pipe.tokenizer) == len(base.tokenizers[0])


def test_base_model_may_have_moved(tiny_base_model: Path, tmp_path: Path) -> None:
    base = BaseModel.load(str(tiny_base_model))
    gone = str(tmp_path / "gone")
    registry = NeuronRegistry.create(tmp_path / "registry", gone, base.fingerprint(), pretrained(base))
    registry.add(learned(base, "<new1>", 1))
    with pytest.raises(UserError, match="gone: there is no such folder or file"):
        load_pipeline(tmp_path)
    pipe = load_pipeline(tmp_path, base_model=str(tiny_base_model))
    assert "<new1>" in pipe.tokenizer.get_vocab()


def test_another_base_model_is_refused(run: Path, tmp_path: Path) -> None:
    other = write_tiny_base_model(tmp_path / "other", seed=7)
    with pytest.raises(UserError, match=r"was learned on the base model .*other.* is another"):
        load_pipeline(run, base_model=str(other))


def test_unknown_concept_and_missing_run_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="<new7>"):
        load_pipeline(run, "<new7>")
    with pytest.raises(UserError, match="there is no such folder"):
        load_pipeline(tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["tiny_base_model", "tiny_xl_base_model", "fused"])
def test_one_model_moves_from_stage_to_stage(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "fused":
        run = learn("mix_of_show", request.getfixturevalue("tiny_base_model"), tmp_path)
    else:
        run = write_run(str(request.getfixturevalue(kind)), tmp_path)
    strengths = {} if kind == "fused" else {"<new1>": 0.5}
    asked = [(None, {}), ("<new1>", {}), ("<new1>", strengths), (None, strengths), ("<new1>", {})]
    expected = []
    for upto, chosen in asked:
        pipe = load_pipeline(run, upto, strengths=chosen)
        (picture,) = generate(pipe, ["a <new1> cat"], [0], steps=2)
        expected.append(({name: each.clone() for name, each in pipe.unet.named_parameters()}, picture.tobytes()))
    folder = RunFolder(run)
    # What fit has fused after each stage is made anew, on a model that shows another stage.
    shutil.rmtree(folder.fused, ignore_errors=True)
    model = RunModel(folder, NeuronRegistry.load(folder.registry), keep_fused=False)
    monkeypatch.setattr(BaseModel, "load", lambda *_, **__: pytest.fail("the model was loaded again"))
    for (upto, chosen), (weights, pixels) in zip(asked, expected, strict=True):
        pipe = model.after(upto, chosen)
        assert all(torch.equal(weights[name], each) for name, each in pipe.unet.named_parameters())
        (picture,) = generate(pipe, ["a <new1> cat"], [0], steps=2)
        assert picture.tobytes() == pixels
    assert not folder.fused.exists()


def test_a_stage_that_failed_leaves_no_trace(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_written(pipe: Any, weights: dict[str, Tensor]) -> None:
        write_weights(pipe, {name: weight * 0 for name, weight in weights.items()})
        raise OSError("gone")

    expected = {name: each.clone() for name, each in load_pipeline(run).unet.named_parameters()}
    model = RunModel(RunFolder(run), NeuronRegistry.load(run / "registry"))
    model.after()
    with monkeypatch.context() as patched:
        patched.setattr("cns_lightning.pipeline.write_weights", half_written)
        with pytest.raises(OSError, match="gone"):
            model.after("<new1>")
    unet = model.after().unet
    assert all(torch.equal(expected[name], each) for name, each in unet.named_parameters())
