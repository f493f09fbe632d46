"""What the text encoders give the UNet, and the tokens that concepts add to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from cns_lightning.determinism import normal
from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.utils.hooks import RemovableHandle
    from transformers import CLIPTokenizer

    from cns_lightning.diffusion.base_model import BaseModel

INITIAL_NOISE = 0.5
"""Standard deviation of the noise on a concept's first embedding, in standard deviations of the embedding table."""


@dataclass(frozen=True)
class TextStates:
    """Encoded prompts.

    Attributes:
        states: what the cross-attention reads, shape (prompts, tokens, width), in the base model's precision.
        pooled: one state a prompt, shape (prompts, pooled width), for SDXL; None otherwise.
        positions: shape (prompts, tokens), bool: from the start token to the first end token, without the padding.
        token_ids: shape (prompts, tokens), int64, of the first tokenizer.
    """

    states: Tensor
    pooled: Tensor | None
    positions: Tensor
    token_ids: Tensor


def text_states(base: BaseModel, prompts: list[str], with_gradient: bool = False) -> TextStates:
    """Encodes prompts exactly as the stock pipelines do; what does not fit is cut off.

    Stable Diffusion 1.x and 2.x read the last, normed states; SDXL the last but one of both encoders side by side.

    Args:
        base: the model.
        prompts: at least one.
        with_gradient: let the gradient reach a token that is being trained.
    """
    with torch.set_grad_enabled(with_gradient):
        encoded = [_encode(base, number, prompts) for number in range(len(base.text_encoders))]
    token_ids = encoded[0].token_ids
    ends = torch.eq(token_ids, cast("int", base.tokenizers[0].eos_token_id))
    return TextStates(
        states=torch.cat([each.states for each in encoded], dim=-1).to(base.text_encoders[-1].dtype),
        pooled=encoded[-1].pooled,
        positions=ends.cumsum(1) - ends.long() == 0,
        token_ids=token_ids,
    )


@dataclass(frozen=True)
class _Encoded:
    states: Tensor
    pooled: Tensor | None
    token_ids: Tensor


def _encode(base: BaseModel, number: int, prompts: list[str]) -> _Encoded:
    tokenizer, encoder = base.tokenizers[number], base.text_encoders[number]
    # A tokenizer saved without its length claims to take any number of tokens.
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    inputs = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    device = base.embedding_table(number).weight.device
    token_ids = cast("Tensor", inputs["input_ids"]).to(device)
    if base.is_xl:
        output = cast("Any", encoder(token_ids, output_hidden_states=True))
        return _Encoded(output.hidden_states[-2], getattr(output, "text_embeds", None), token_ids)
    mask = None
    if getattr(encoder.config, "use_attention_mask", False):
        mask = cast("Tensor", inputs["attention_mask"]).to(device)
    return _Encoded(cast("Any", encoder(token_ids, attention_mask=mask)).last_hidden_state, None, token_ids)


class ConceptTokens:
    """The tokens that concepts added to a base model's tokenizers and embedding tables.

    A table grows at its end; rows that were there stay where and as they are. While a token is trained its row is read
    from a parameter and the table is left alone, so that no other row can move, whatever the optimizer does.

    Args:
        base: the model; every pipeline it gives knows the tokens as well.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._identifiers: dict[str, list[int]] = {}
        self._trained: dict[str, list[nn.Parameter]] = {}
        self._hooks: dict[str, list[RemovableHandle]] = {}

    @property
    def names(self) -> list[str]:
        """Lists the added tokens in the order of their addition."""
        return list(self._identifiers)

    def identifiers(self, token: str, encoder: int = 0) -> list[int]:
        """Gives the ids by which a token stands in ``TextStates.token_ids``; one, as a token has one vector."""
        return [self.row(token, encoder)]

    def row(self, token: str, encoder: int = 0) -> int:
        """Gives the row of a token in the embedding table of one encoder."""
        return self._identifiers[token][encoder]

    def add(self, token: str, embeddings: list[Tensor] | None = None) -> None:
        """Adds one token; see `add_all`."""
        self.add_all({token: embeddings})

    def add_all(self, embeddings: Mapping[str, list[Tensor] | None]) -> None:
        """Adds tokens to every tokenizer, and their rows to the tables in one go: a table is copied when it grows.

        Args:
            embeddings: by token, one vector for each encoder, shape (width,) or (1, width), rounded to the precision of
                the table; None starts at the mean of the table.

        Raises:
            UserError: if a token is a word the model knows, was added before, or would not stay in one piece.
        """
        for token in embeddings:
            self._identifiers[token] = [
                _add_to_vocabulary(tokenizer, token, f"base model {self.base.source}")
                for tokenizer in self.base.tokenizers
            ]
        for number in range(len(self.base.text_encoders)):
            self._grow(number)
        for token, vectors in embeddings.items():
            self.set(token, self._mean_rows() if vectors is None else vectors)

    def embedding(self, token: str) -> list[Tensor]:
        """Gives copies of a token's vectors as they are now.

        Returns:
            One for each encoder, shape (1, width), float32, on the CPU.
        """
        rows: list[Tensor] = list(self._trained.get(token, [])) or [
            table.weight[row].unsqueeze(0) for table, row in zip(self._tables(), self._identifiers[token], strict=True)
        ]
        return [row.detach().float().cpu().clone() for row in rows]

    def set(self, token: str, embeddings: list[Tensor]) -> None:
        """Writes a token's vectors into the tables, rounded to their precision.

        Args:
            token: an added token that is not being trained.
            embeddings: one for each encoder, shape (width,) or (1, width).
        """
        if token in self._trained:
            raise ValueError(f"{token} is being trained")
        for table, row, vector in zip(self._tables(), self._identifiers[token], embeddings, strict=True):
            with torch.no_grad():
                table.weight[row] = vector.detach().reshape(table.embedding_dim).to(table.weight)

    def train(self, token: str) -> list[nn.Parameter]:
        """Makes a token trainable, from where it stands in the tables; anew when it is trained already.

        Returns:
            One parameter for each encoder, shape (1, width), float32, on the device of its table.
        """
        self._release(token)
        parameters, hooks = [], []
        for table, row in zip(self._tables(), self._identifiers[token], strict=True):
            parameter = nn.Parameter(table.weight[row].detach().float().unsqueeze(0).clone())
            hooks.append(table.register_forward_hook(_RowFromParameter(row, parameter)))
            parameters.append(parameter)
        self._trained[token], self._hooks[token] = parameters, hooks
        return parameters

    def fold(self, token: str) -> None:
        """Ends a token's training and writes it into the tables; does nothing when it is not trained."""
        parameters = self._trained.get(token)
        if parameters is not None:
            self._release(token)
            self.set(token, list(parameters))

    def _release(self, token: str) -> None:
        for hook in self._hooks.pop(token, []):
            hook.remove()
        self._trained.pop(token, None)

    def _tables(self) -> list[nn.Embedding]:
        return [self.base.embedding_table(number) for number in range(len(self.base.text_encoders))]

    def _mean_rows(self) -> list[Tensor]:
        rows = zip(self._tables(), self.base.vocabulary_sizes, strict=True)
        return [table.weight[:size].float().mean(0) for table, size in rows]

    def _grow(self, number: int) -> None:
        """Appends zero rows until the table has one for every id.

        Not by ``resize_token_embeddings``: it fills the whole new table from the global random state first, which costs
        seconds over many concepts and moves the random numbers of a run.
        """
        encoder, table = self.base.text_encoders[number], self._tables()[number]
        needed = 1 + max(identifiers[number] for identifiers in self._identifiers.values())
        if needed > table.num_embeddings:
            rows = table.weight.new_zeros(needed - table.num_embeddings, table.embedding_dim)
            table.weight = nn.Parameter(torch.cat([table.weight.detach(), rows]), requires_grad=False)
            table.num_embeddings = needed
            encoder.config.vocab_size = needed


class _RowFromParameter:
    """Forward hook of an embedding table: one row comes from a parameter."""

    def __init__(self, row: int, parameter: nn.Parameter) -> None:
        self.row, self.parameter = row, parameter

    def __call__(self, table: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        own = (inputs[0] == self.row).unsqueeze(-1)
        return torch.where(own, self.parameter.to(output.dtype), output)


def _add_to_vocabulary(tokenizer: CLIPTokenizer, token: str, where: str) -> int:
    """Adds a token to a tokenizer and gives its id.

    CLIP reads lower case alone, so ``<New1>`` and ``<new1>`` are one token: the second of them is refused.
    """
    remedy = "Choose another token, such as <new1>"
    known = {added.content.lower() for added in tokenizer.added_tokens_decoder.values()}
    if token.lower() in known:
        raise UserError(where, f"already has the token {token} (upper and lower case are one)", remedy)
    unknown = tokenizer.unk_token_id
    if len(split := _token_ids(tokenizer, token)) <= 1 and split != [unknown]:
        reason = "which is a word it knows" if split else "of which nothing is left when it is read"
        raise UserError(where, f"cannot take {token} for a new token, {reason}", remedy)
    tokenizer.add_tokens(token)
    identifier = cast("int", tokenizer.convert_tokens_to_ids(token))
    if identifier == unknown or _token_ids(tokenizer, f"a photo of {token} cat").count(identifier) != 1:
        raise UserError(where, f"does not keep {token} in one piece", remedy)
    return identifier


def _token_ids(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    return cast("list[int]", tokenizer(text, add_special_tokens=False)["input_ids"])


def initial_embedding(base: BaseModel, class_word: str, seed: int, token: str) -> list[Tensor]:
    """Gives where a concept's token starts: the mean of its class word's vectors, plus noise of its own.

    Without the noise two concepts of one class would have the same neurons.

    Args:
        base: the model; learned tokens do not change the result.
        class_word: one or more words.
        seed: of the run.
        token: the concept's token, which picks the noise.

    Returns:
        One vector for each encoder, shape (1, width), float32, on the CPU.

    Raises:
        UserError: if nothing is left of the class word when it is read.

    Source: docs/methods.md 1.4, token init (class word + noise); the noise's size is our choice.
    """
    vectors = []
    for number, tokenizer in enumerate(base.tokenizers):
        ids = _token_ids(tokenizer, class_word)
        if not ids:
            raise UserError(f"class_word of {token}", f"{class_word!r} holds no word", "Say what it is, such as cat")
        rows = base.embedding_table(number).weight.detach().float().cpu()
        table = rows[: base.vocabulary_sizes[number]]
        noise = normal((1, table.shape[1]), seed, "initial_embedding", token, number)
        vectors.append(rows[ids].mean(0, keepdim=True) + INITIAL_NOISE * table.std() * noise)
    return vectors


def random_embedding(base: BaseModel, seed: int, token: str) -> list[Tensor]:
    """Gives random vectors as spread as the embedding table's, for a token that starts from nothing.

    Returns:
        One vector for each encoder, shape (1, width), float32, on the CPU.

    Source: Continual Diffusion (arXiv 2304.06027), tokens; docs/methods.md 7, the scale is our reading.
    """
    vectors = []
    for number, size in enumerate(base.vocabulary_sizes):
        table = base.embedding_table(number).weight.detach().float().cpu()[:size]
        vectors.append(table.std() * normal((1, table.shape[1]), seed, "random_embedding", token, number))
    return vectors
