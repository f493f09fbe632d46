"""Text states equal those of the stock pipelines; a concept's token moves one row and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.start_embeddings import initial_embedding, random_embedding
from cns_lightning.diffusion.text import ConceptTokens, prompt_length, reads_token, text_states
from cns_lightning.errors import UserError

PROMPTS = ["a photo of a cat on the beach", "", "An ÉTRANGE word! " * 40]


@pytest.fixture(params=["base", "xl_base"])
def model(request: pytest.FixtureRequest) -> BaseModel:
    """Returns both kinds of base model, one after the other."""
    return request.getfixturevalue(request.param)


def vectors(model: BaseModel, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(encoder.config.hidden_size, generator=generator) for encoder in model.text_encoders]


def tables(model: BaseModel) -> list[torch.Tensor]:
    return [model.embedding_table(number).weight.detach().clone() for number in range(len(model.text_encoders))]


def test_states_equal_the_stock_pipelines(base: BaseModel) -> None:
    expected, _ = base.pipeline().encode_prompt(PROMPTS, "cpu", 1, False)
    states = text_states(base, PROMPTS)
    assert torch.equal(states.states, expected)
    assert states.states.shape == (3, 77, 12)
    assert states.pooled is None


def test_attention_mask_is_used_where_the_model_asks_for_it(base: BaseModel) -> None:
    plain = text_states(base, PROMPTS).states
    base.text_encoders[0].config.use_attention_mask = True
    expected, _ = base.pipeline().encode_prompt(PROMPTS, "cpu", 1, False)
    assert torch.equal(text_states(base, PROMPTS).states, expected)
    assert not torch.equal(expected, plain)


def test_xl_states_equal_the_stock_pipelines(xl_base: BaseModel) -> None:
    ConceptTokens(xl_base).add("<new1>", vectors(xl_base))
    prompts = [*PROMPTS, "a <new1> cat"]
    expected, _, pooled, _ = xl_base.pipeline().encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    states = text_states(xl_base, prompts)
    assert torch.equal(states.states, expected)
    assert states.pooled is not None
    assert torch.equal(states.pooled, pooled)


def test_xl_pooled_state_comes_from_the_end_token_when_tokens_were_added(xl_base: BaseModel) -> None:
    ConceptTokens(xl_base).add("<new1>", vectors(xl_base))
    states = text_states(xl_base, ["a <new1> cat on the beach"])
    encoder: Any = xl_base.text_encoders[1]
    output = encoder(
        xl_base.tokenizers[1](["a <new1> cat on the beach"], padding="max_length", return_tensors="pt").input_ids
    )
    end = int(states.positions.sum()) - 1
    assert states.pooled is not None
    assert torch.allclose(states.pooled, encoder.text_projection(output.last_hidden_state[:, end]), atol=1e-6)
    assert encoder.config.eos_token_id == xl_base.tokenizers[1].eos_token_id


def test_positions_end_with_the_first_end_token(base: BaseModel) -> None:
    states = text_states(base, ["a cat", "", "cat " * 100])
    assert states.positions.sum(1).tolist() == [4, 2, 77]
    assert states.positions[:, 0].all()
    assert states.token_ids.shape == (3, 77)


def test_states_carry_no_gradient_unless_asked(base: BaseModel) -> None:
    tokens = ConceptTokens(base)
    tokens.add("<new1>", vectors(base))
    tokens.train("<new1>")
    assert not text_states(base, ["a <new1> cat"]).states.requires_grad
    assert text_states(base, ["a <new1> cat"], with_gradient=True).states.requires_grad


@pytest.mark.parametrize("token", ["<new1>", "<New1>", "<momo-2>", "<é>", "<a_b>"])
def test_added_token_is_one_id_everywhere(model: BaseModel, token: str) -> None:
    tokens = ConceptTokens(model)
    tokens.add(token, vectors(model))
    for number, tokenizer in enumerate(model.tokenizers):
        for prompt in (f"a photo of {token} cat", token, f"({token}),", f"{token}'s house", token.upper()):
            assert tokenizer(prompt).input_ids.count(tokens.row(token, number)) == 1
    assert tokens.names == [token]
    assert tokens.identifiers(token) == [tokens.row(token)]
    assert tokens.row(token) in text_states(model, [f"a {token} cat"]).token_ids


def test_adding_changes_no_other_row_and_no_random_state(model: BaseModel) -> None:
    before, random_state = tables(model), torch.get_rng_state()
    other = text_states(model, PROMPTS).states
    given = {"<new1>": vectors(model, 1), "<new2>": vectors(model, 2)}
    tokens = ConceptTokens(model)
    tokens.add_all(given)
    tokens.add("<new3>")
    for old, new in zip(before, tables(model), strict=True):
        assert torch.equal(new[: len(old)], old)
        assert len(new) == len(old) + 3
        assert torch.allclose(new[-1], old.mean(0))
    for token, expected in given.items():
        for row, vector in zip(tokens.embedding(token), expected, strict=True):
            assert torch.equal(row, vector.unsqueeze(0))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(text_states(model, PROMPTS).states, other)
    assert not any(parameter.requires_grad for encoder in model.text_encoders for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("cat", "cannot take cat for a new token, which is a word it knows"),
        ("<new1>", "already has the token <new1>"),
        ("<NEW1>", "already has the token <NEW1> \\(upper and lower case are one\\)"),
        ("<|endoftext|>", "already has the token"),
        (" ", "of which nothing is left when it is read"),
        ("x<|endoftext|>", "does not keep x<|endoftext|> in one piece"),
    ],
)
def test_unfit_tokens_are_refused(base: BaseModel, token: str, message: str) -> None:
    tokens = ConceptTokens(base)
    tokens.add("<new1>", vectors(base))
    with pytest.raises(UserError, match=message.replace("|", "\\|")):
        tokens.add(token, vectors(base))
    assert tokens.names == ["<new1>"]


def test_training_moves_one_row_through_the_frozen_encoders(model: BaseModel) -> None:
    tokens = ConceptTokens(model)
    tokens.add_all({f"<new{number}>": vectors(model, number) for number in (1, 2, 3)})
    others = ["a <new1> cat", "a <new3> cat"]
    before, untouched = tables(model), text_states(model, others).states
    parameters = tokens.train("<new2>")
    assert [tuple(each.shape) for each in parameters] == [(1, table.shape[1]) for table in before]
    # Weight decay on purpose: under it rows of a whole table would all move.
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        text_states(model, ["a <new2> dog", "a cat"], with_gradient=True).states.square().sum().backward()
        assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in parameters)
        optimizer.step()
    assert all(torch.equal(old, new) for old, new in zip(before, tables(model), strict=True))
    moved = [each.detach().clone() for each in parameters]
    assert all(torch.equal(row, each) for row, each in zip(tokens.embedding("<new2>"), moved, strict=True))
    trained = text_states(model, ["a <new2> dog"]).states
    assert torch.equal(text_states(model, others).states, untouched)
    tokens.fold("<new2>")
    tokens.fold("<new2>")
    assert torch.equal(text_states(model, ["a <new2> dog"]).states, trained)
    assert torch.equal(text_states(model, others).states, untouched)
    for number, (old, new) in enumerate(zip(before, tables(model), strict=True)):
        row = tokens.row("<new2>", number)
        assert torch.equal(new[row], moved[number][0])
        assert torch.equal(torch.cat([old[:row], old[row + 1 :]]), torch.cat([new[:row], new[row + 1 :]]))
    encoders = [parameter for encoder in model.text_encoders for parameter in encoder.parameters()]
    assert all(parameter.grad is None for parameter in encoders)


def test_gradient_equals_that_of_the_table_row(base: BaseModel) -> None:
    tokens = ConceptTokens(base)
    tokens.add("<new1>", vectors(base))
    prompts = ["a <new1> cat", "<new1> and <new1>"]
    table = base.embedding_table(0).weight
    table.requires_grad_(True)
    text_states(base, prompts, with_gradient=True).states.square().sum().backward()
    assert table.grad is not None
    expected = table.grad[tokens.row("<new1>")].clone()
    table.requires_grad_(False)
    (parameter,) = tokens.train("<new1>")
    text_states(base, prompts, with_gradient=True).states.square().sum().backward()
    assert parameter.grad is not None
    assert torch.allclose(parameter.grad[0], expected, rtol=1e-4)


def test_training_anew_starts_from_the_table(base: BaseModel) -> None:
    tokens = ConceptTokens(base)
    tokens.add("<new1>", vectors(base))
    (first,) = tokens.train("<new1>")
    with torch.no_grad():
        first.add_(1)
    with pytest.raises(ValueError, match="is being trained"):
        tokens.set("<new1>", vectors(base))
    (second,) = tokens.train("<new1>")
    assert torch.equal(second.detach()[0], vectors(base)[0])
    with torch.no_grad():
        first.add_(100)
    tokens.fold("<new1>")
    assert torch.equal(tokens.embedding("<new1>")[0][0], vectors(base)[0])


def test_half_precision_encoder_trains_a_float_token(tiny_base_model: Path) -> None:
    base = BaseModel.load(str(tiny_base_model), dtype=torch.bfloat16)
    tokens = ConceptTokens(base)
    tokens.add("<new1>", vectors(base))
    (parameter,) = tokens.train("<new1>")
    states = text_states(base, ["a <new1> cat"], with_gradient=True).states
    assert states.dtype == torch.bfloat16
    states.float().square().sum().backward()
    assert parameter.dtype == torch.float32
    assert parameter.grad is not None
    assert torch.isfinite(parameter.grad).all()


def test_tokens_survive_saving_and_stock_loading(xl_base: BaseModel, tmp_path: Path) -> None:
    from cns_lightning.diffusion.loading import stock_pipelines

    ConceptTokens(xl_base).add_all({"<New1>": vectors(xl_base, 1), "<momo>": vectors(xl_base, 2)})
    prompts = ["a <New1> cat", "a <momo> dog"]
    expected = text_states(xl_base, prompts)
    xl_base.pipeline().save_pretrained(tmp_path)
    pipe: Any = stock_pipelines()[1].from_pretrained(tmp_path)
    states, _, pooled, _ = pipe.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    assert torch.equal(states, expected.states)
    assert expected.pooled is not None
    assert torch.equal(pooled, expected.pooled)


def test_initial_embedding_is_the_class_word_plus_noise_of_its_own(model: BaseModel) -> None:
    first = initial_embedding(model, "cat", 0, "<new1>")
    ConceptTokens(model).add("<new9>", [1000 * vector for vector in vectors(model)])
    again = initial_embedding(model, "cat", 0, "<new1>")
    second = initial_embedding(model, "cat", 0, "<new2>")
    for number, table in enumerate(tables(model)):
        assert first[number].shape == (1, table.shape[1])
        assert torch.equal(first[number], again[number]), "depends on other tokens"
        assert not torch.equal(first[number], second[number])
        row = model.tokenizers[number]("cat").input_ids[1]
        spread = (first[number][0] - table[row]).std() / table[row].std()
        assert 0.2 < spread < 1.0


def test_rows_that_no_word_uses_do_not_set_the_noise(model: BaseModel) -> None:
    before = initial_embedding(model, "cat", 0, "<new1>"), random_embedding(model, "cat", 0, "<new1>")
    for tokenizer, table in zip(model.tokenizers, tables(model), strict=True):
        with torch.no_grad():
            table[[row for row in range(len(table)) if row not in tokenizer("cat").input_ids]] *= 100
    after = initial_embedding(model, "cat", 0, "<new1>"), random_embedding(model, "cat", 0, "<new1>")
    assert all(map(torch.equal, before[0] + before[1], after[0] + after[1]))


def test_initial_embedding_of_several_words_is_their_mean(base: BaseModel) -> None:
    table = tables(base)[0]
    ids = base.tokenizers[0]("plush toy").input_ids[1:-1]
    assert len(ids) == 2
    many = torch.stack([initial_embedding(base, "plush toy", seed, "<new1>")[0][0] for seed in range(400)])
    assert torch.allclose(many.mean(0), table[ids].mean(0), atol=0.15 * float(table.std()))


def test_empty_class_word_is_refused(base: BaseModel) -> None:
    with pytest.raises(UserError, match="class_word of <new1>: '  ' holds no word"):
        initial_embedding(base, "  ", 0, "<new1>")


def test_a_token_behind_the_cut_is_not_read(base: BaseModel) -> None:
    length = prompt_length(base)
    for words in range(length - 6, length + 3):
        prompt = " ".join(["photo"] * words + ["<momo>", "cat"])
        ids = base.tokenizers[0](prompt, truncation=True, max_length=length).input_ids
        # The first piece of an unknown token is read as long as one place is left before the end token.
        assert reads_token(base, prompt, "<momo>") == (len(ids) - 2 > words), words
