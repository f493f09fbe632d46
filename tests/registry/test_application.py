"""A plain pipeline that a registry was applied to computes with the trained weights and reads the tokens."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.projections import write_weights
from cns_lightning.diffusion.text import ConceptTokens, text_states
from cns_lightning.errors import UserError
from cns_lightning.miniature.tiny import tiny_base_model
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.registry.application import write_tokens
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry

PROMPTS = ["a photo of a <new0> cat", "a <new1> dog and a <new0>cat, <new0>.", "a dog"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(folder: Path) -> BaseModel:
    return BaseModel.load(str(folder))


def _key_value_weights(base: BaseModel) -> dict[str, Tensor]:
    return {name: projection.weight.detach().clone() for name, projection in key_value_projections(base.unet).items()}


def _record(number: int, weights: dict[str, Tensor], vectors: int = 1, encoders: int = 1) -> ConceptRecord:
    generator = torch.Generator().manual_seed(number)
    bools = {name: torch.rand(weight.shape, generator=generator) < 0.1 for name, weight in weights.items()}
    mask = NeuronMask.from_bools(bools)
    values = torch.randn(mask.count(), generator=generator).half()
    rows = [torch.randn(vectors, 12, generator=generator) for _ in range(encoders)]
    return ConceptRecord(f"<new{number}>", "cat", "animal", f"a <new{number}> cat", mask, values, rows)


@pytest.fixture
def registry(folder: Path, base: BaseModel, tmp_path: Path) -> NeuronRegistry:
    made = NeuronRegistry.create(tmp_path / "registry", str(folder), base.fingerprint())
    for number in range(2):
        made.add(_record(number, _key_value_weights(base)))
    return NeuronRegistry.load(tmp_path / "registry")


def _stock(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder)


def test_the_weights_and_no_others_change(folder: Path, registry: NeuronRegistry, base: BaseModel) -> None:
    before = dict(_stock(folder).unet.named_parameters())
    pipe = _stock(folder)
    registry.apply(pipe)
    trained = registry.weights(base=_key_value_weights(base))
    for name, value in pipe.unet.named_parameters():
        assert torch.equal(value, trained[name] if name in trained else before[name])
    assert all(not torch.equal(trained[name], before[name]) for name in trained)


def test_prompts_are_read_as_during_training(folder: Path, registry: NeuronRegistry, base: BaseModel) -> None:
    tokens = ConceptTokens(base)
    tokens.add_all({record.token: record.embeddings for record in registry.records})
    pipe = _stock(folder)
    before = torch.get_rng_state()
    registry.apply(pipe)
    assert torch.equal(torch.get_rng_state(), before)
    inputs = pipe.tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    expected = text_states(base, PROMPTS)
    assert torch.equal(inputs["input_ids"], expected.token_ids)
    with torch.no_grad():
        read = pipe.text_encoder(inputs["input_ids"]).last_hidden_state
    assert read is not None
    assert torch.equal(read, expected.states)


def test_stock_calls_draw_pictures(folder: Path, registry: NeuronRegistry) -> None:
    pipe = _stock(folder)
    pipe.set_progress_bar_config(disable=True)
    registry.apply(pipe)

    def drawn(prompt: str) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.from_numpy(
            pipe(prompt, num_inference_steps=1, generator=generator, output_type="np").images  # type: ignore[operator]
        )

    assert not torch.equal(drawn("a <new0> cat"), drawn("a <new1> cat"))


def test_applying_again_goes_back_and_forth(folder: Path, registry: NeuronRegistry) -> None:
    pipe, once = _stock(folder), _stock(folder)
    registry.apply(once, upto="<new0>")
    registry.apply(pipe)
    everything = [value.clone() for value in pipe.unet.parameters()]
    registry.apply(pipe, upto="<new0>")
    assert all(torch.equal(*pair) for pair in zip(pipe.unet.parameters(), once.unet.parameters(), strict=True))
    row = pipe.tokenizer.convert_tokens_to_ids("<new1>")
    pipe.text_encoder.get_input_embeddings().weight[row] = 0.0
    registry.apply(pipe)
    assert all(torch.equal(*pair) for pair in zip(pipe.unet.parameters(), everything, strict=True))
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[row], registry.embedding("<new1>")[0])


def test_half_precision_is_rounded_once(folder: Path, registry: NeuronRegistry) -> None:
    pipe = _stock(folder).to(torch.float16)
    registry.apply(pipe)
    for name, weight in registry.weights().items():
        assert torch.equal(dict(pipe.unet.named_parameters())[name], weight.half())


def test_a_base_model_that_changed_in_its_place_is_refused(folder: Path, tmp_path: Path, base: BaseModel) -> None:
    other = tiny_base_model(tmp_path / "base", seed=1)
    registry = NeuronRegistry.create(tmp_path / "registry", str(other), base.fingerprint())
    registry.add(_record(0, _key_value_weights(base)))
    with pytest.raises(UserError, match="what is found there now is another"):
        registry.weights()


def test_several_vectors_have_the_names_diffusers_expands_to(folder: Path, base: BaseModel) -> None:
    pipe = _stock(folder)
    record = _record(0, _key_value_weights(base), vectors=3)
    write_tokens(pipe, "tiny", [record])
    assert pipe.maybe_convert_prompt("a <new0> cat", pipe.tokenizer) == "a <new0> <new0>_1 <new0>_2 cat"
    ids = pipe.tokenizer.convert_tokens_to_ids(["<new0>", "<new0>_1", "<new0>_2"])
    assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[ids], record.embeddings[0])
    read = pipe.tokenizer("<new0> <new0>_1 <new0>_2", add_special_tokens=False)["input_ids"]
    assert read == ids


def test_a_foreign_pipeline_is_refused(folder: Path, base: BaseModel) -> None:
    pipe = _stock(folder)
    weights = _key_value_weights(base)
    with pytest.raises(UserError, match="has 1 text encoders, <new0> was learned with 2"):
        write_tokens(pipe, "tiny", [_record(0, weights, encoders=2)])
    name = next(iter(weights))
    before = dict(pipe.unet.named_parameters())[name].clone()
    with pytest.raises(UserError, match=r"its .* has shape \(.*\), shape \(2, 2\) is needed"):
        write_weights(pipe, {name: torch.zeros_like(before), list(weights)[1]: torch.zeros(2, 2)})
    assert torch.equal(dict(pipe.unet.named_parameters())[name], before)
    with pytest.raises(UserError, match="has no x"):
        write_weights(pipe, {"x": torch.zeros(2, 2)})
