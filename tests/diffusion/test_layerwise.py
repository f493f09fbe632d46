"""Layer-wise tokens: every cross-attention layer reads the prompt with its own vectors."""

from pathlib import Path

import pytest
import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.layerwise import LayerwiseText
from cns_lightning.diffusion.sampling import generate_pairs
from cns_lightning.diffusion.text import ConceptTokens, text_states
from cns_lightning.errors import UserError

PROMPTS = ["a <new1> in the snow", "a photo of a cat"]


@pytest.fixture
def base(tiny_base_model: Path) -> BaseModel:
    return BaseModel.load(str(tiny_base_model))


def _vectors(base: BaseModel, count: int) -> torch.Tensor:
    width = base.embedding_table(0).embedding_dim
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


def test_each_layer_reads_what_a_token_of_its_vectors_alone_would_give(base: BaseModel, tiny_base_model: Path) -> None:
    text = LayerwiseText.of(base)
    tokens = ConceptTokens(base, text.layers)
    vectors = _vectors(base, 2 * text.layers)
    tokens.add("<new1>", [vectors])
    text.add(tokens.rows("<new1>"))
    states = text_states(base, PROMPTS)
    assert len(tokens.identifiers("<new1>")) == 2
    read: dict[str, torch.Tensor] = {}
    for name, projection in key_value_projections(base.unet).items():
        projection.register_forward_hook(lambda _, inputs, __, name=name: read.update({name: inputs[0]}))
    generate_pairs(base.pipeline(), [(PROMPTS[0], 0)], steps=1, guidance=1.0)
    for layer in range(text.layers):
        plain = BaseModel.load(str(tiny_base_model))
        ConceptTokens(plain).add("<new1>", [vectors[2 * layer : 2 * layer + 2]])
        expected = text_states(plain, PROMPTS).states
        torch.testing.assert_close(text.own_part(states.states, layer), expected)
        # Keys and values of the stock pipeline read the same.
        for name in list(read)[2 * layer : 2 * layer + 2]:
            torch.testing.assert_close(read[name], expected[:1])


def test_the_gradient_of_a_layer_reaches_its_own_vectors_alone(base: BaseModel) -> None:
    text = LayerwiseText.of(base)
    tokens = ConceptTokens(base, text.layers)
    tokens.add("<new1>", [_vectors(base, 2 * text.layers)])
    text.add(tokens.rows("<new1>"))
    (parameter,) = tokens.train("<new1>")
    text.own_part(text_states(base, PROMPTS[:1], with_gradient=True).states, 1).square().sum().backward()
    assert parameter.grad is not None
    moved = parameter.grad.abs().sum(-1) > 0
    assert moved.tolist() == [number in (2, 3) for number in range(2 * text.layers)]


def test_removal_leaves_the_model_as_it_was(base: BaseModel) -> None:
    before = text_states(base, PROMPTS[1:]).states
    text = LayerwiseText.of(base)
    assert LayerwiseText.of(base) is text
    text.remove()
    assert torch.equal(text_states(base, PROMPTS[1:]).states, before)
    assert LayerwiseText.of(base) is not text


def test_two_text_encoders_are_refused(tiny_xl_base_model: Path) -> None:
    with pytest.raises(UserError, match="has 2 text encoders, this method is made for one"):
        LayerwiseText.of(BaseModel.load(str(tiny_xl_base_model)))
