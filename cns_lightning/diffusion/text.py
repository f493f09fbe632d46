"""What the text encoders give the UNet, and the tokens that concepts add to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from torch import Tensor, nn
from torch.nn import functional

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.utils.hooks import RemovableHandle
    from transformers import CLIPTokenizer

    from cns_lightning.diffusion.base_model import BaseModel


@dataclass(frozen=True)
class TextStates:
    """Encoded prompts.

    Attributes:
        states: what the cross-attention reads, shape (prompts, tokens, width), in the base model's precision; where
            tokens are layer-wise those of all layers side by side.
        pooled: one state a prompt, shape (prompts, pooled width), for SDXL; None otherwise.
        positions: shape (prompts, tokens), bool: from the start token to the first end token, without the padding.
        token_ids: shape (prompts, tokens), int64, of the first tokenizer.
    """

    states: Tensor
    pooled: Tensor | None
    positions: Tensor
    token_ids: Tensor

    @classmethod
    def cat(cls, parts: Sequence[TextStates]) -> TextStates:
        """Puts the states of several lists of prompts one behind the other."""
        pooled = [each.pooled for each in parts if each.pooled is not None]
        return cls(
            states=torch.cat([each.states for each in parts]),
            pooled=torch.cat(pooled) if pooled else None,
            positions=torch.cat([each.positions for each in parts]),
            token_ids=torch.cat([each.token_ids for each in parts]),
        )


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


def prompt_length(base: BaseModel, number: int = 0) -> int:
    """Returns how many tokens a text encoder reads, beginning and end of the prompt included.

    Args:
        base: the model.
        number: which text encoder, from 0.
    """
    # A tokenizer saved without its length claims to take any number of tokens.
    return min(base.tokenizers[number].model_max_length, base.text_encoders[number].config.max_position_embeddings)


def reads_token(base: BaseModel, prompt: str, token: str) -> bool:
    """Returns whether every text encoder reads a token of a prompt, or it stands behind the cut.

    Args:
        base: the model; its tokenizers need not know the token yet.
        prompt: names the token.
        token: token of one vector.
    """
    before = prompt.split(token, 1)[0]
    for number, tokenizer in enumerate(base.tokenizers):
        place = 1 + len(tokenizer(before, add_special_tokens=False, verbose=False).input_ids)
        if place >= prompt_length(base, number) - 1:
            return False
    return True


@dataclass(frozen=True)
class _Encoded:
    states: Tensor
    pooled: Tensor | None
    token_ids: Tensor


def _encode(base: BaseModel, number: int, prompts: list[str]) -> _Encoded:
    tokenizer, encoder = base.tokenizers[number], base.text_encoders[number]
    length = prompt_length(base, number)
    if _has_several_vectors(tokenizer):
        # As the pipelines do: a token of several vectors stands in a prompt as all of them.
        prompts = TextualInversionLoaderMixin().maybe_convert_prompt(prompts, tokenizer)  # type: ignore[assignment]
    inputs = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    device = base.embedding_table(number).weight.device
    token_ids = _sent(cast("Tensor", inputs["input_ids"]), device)
    if base.is_xl:
        output = cast("Any", encoder(token_ids, output_hidden_states=True))
        return _Encoded(output.hidden_states[-2], getattr(output, "text_embeds", None), token_ids)
    mask = None
    if getattr(encoder.config, "use_attention_mask", False):
        mask = _sent(cast("Tensor", inputs["attention_mask"]), device)
    return _Encoded(cast("Any", encoder(token_ids, attention_mask=mask)).last_hidden_state, None, token_ids)


def _sent(ids: Tensor, device: torch.device) -> Tensor:
    """Sends ids to a device; to a GPU from pinned memory, which the host need not wait for."""
    return ids.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else ids.to(device)


_SEVERAL_VECTORS: WeakKeyDictionary[CLIPTokenizer, tuple[int, bool]] = WeakKeyDictionary()


def _has_several_vectors(tokenizer: CLIPTokenizer) -> bool:
    """Returns whether a tokenizer has a token of several vectors; found out again when its vocabulary has grown.

    Asking for every prompt would cost a pass over all added tokens at every step.
    """
    known = _SEVERAL_VECTORS.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        names = tokenizer.added_tokens_encoder
        known = (len(tokenizer), any(f"{name}_1" in names for name in names))
        _SEVERAL_VECTORS[tokenizer] = known
    return known[1]


class ConceptTokens:
    """The tokens that concepts added to a base model's tokenizers and embedding tables.

    A table grows at its end; rows that were there stay where and as they are. While a token is trained its rows are
    read from a parameter and the table is left alone, so that no other row can move, whatever the optimizer does.

    Args:
        base: the model; every pipeline it gives knows the tokens as well.
        layers: into how many equal parts a token's vectors fall, one for each cross-attention layer; prompts read as
            many as one part has.
    """

    def __init__(self, base: BaseModel, layers: int = 1) -> None:
        self.base, self.layers = base, layers
        self._identifiers: dict[str, list[list[int]]] = {}
        self._trained: dict[str, list[nn.Parameter]] = {}
        self._hooks: dict[str, list[RemovableHandle]] = {}

    @property
    def names(self) -> list[str]:
        """Lists the added tokens in the order of their addition."""
        return list(self._identifiers)

    def identifiers(self, token: str, encoder: int = 0) -> list[int]:
        """Returns the ids by which a token stands in ``TextStates.token_ids``, one a vector."""
        rows = self.rows(token, encoder)
        return rows[: len(rows) // self.layers]

    def row(self, token: str, encoder: int = 0) -> int:
        """Returns the first row of a token in the embedding table of one encoder."""
        return self.rows(token, encoder)[0]

    def rows(self, token: str, encoder: int = 0) -> list[int]:
        """Returns the rows of a token in the embedding table of one encoder, layer by layer."""
        return self._identifiers[token][encoder]

    def add(self, token: str, embeddings: list[Tensor] | None = None) -> None:
        """Adds one token; see `add_all`."""
        self.add_all({token: embeddings})

    def add_all(self, embeddings: Mapping[str, list[Tensor] | None]) -> None:
        """Adds tokens to every tokenizer, and their rows to the tables in one go: a table is copied when it grows.

        Args:
            embeddings: by token, for each encoder a vector of shape (width,) or several, (vectors, width), rounded to
                the precision of the table; None starts one at the mean of the table.

        Raises:
            UserError: if a token is a word the model knows, was added before, or would not stay in one piece.
        """
        where = f"base model {self.base.source}"
        for token, given in embeddings.items():
            names = vector_names(token, 1 if given is None or given[0].ndim == 1 else len(given[0]), self.layers)
            self._identifiers[token] = [
                [_add_to_vocabulary(tokenizer, name, where) for name in names] for tokenizer in self.base.tokenizers
            ]
        for number in range(len(self.base.text_encoders)):
            self._grow(number)
        for token, vectors in embeddings.items():
            self.set(token, self._mean_rows() if vectors is None else vectors)

    def embedding(self, token: str) -> list[Tensor]:
        """Returns copies of a token's vectors as they are now.

        Returns:
            For each encoder, shape (vectors, width), float32, on the CPU.
        """
        rows: list[Tensor] = list(self._trained.get(token, [])) or [
            table.weight[rows] for table, rows in zip(self._tables(), self._identifiers[token], strict=True)
        ]
        return [row.detach().float().cpu().clone() for row in rows]

    def set(self, token: str, embeddings: list[Tensor]) -> None:
        """Writes a token's vectors into the tables, rounded to their precision.

        Args:
            token: an added token that is not being trained.
            embeddings: for each encoder, shape (width,) or (vectors, width).
        """
        if token in self._trained:
            raise ValueError(f"{token} is being trained")
        for table, rows, vectors in zip(self._tables(), self._identifiers[token], embeddings, strict=True):
            with torch.no_grad():
                table.weight[rows] = vectors.detach().reshape(len(rows), table.embedding_dim).to(table.weight)

    def train(self, token: str) -> list[nn.Parameter]:
        """Makes a token trainable, from where it stands in the tables; anew when it is trained already.

        Returns:
            A parameter for each encoder, shape (vectors, width), float32, on the device of its table.
        """
        self._release(token)
        parameters, hooks = [], []
        for table, rows in zip(self._tables(), self._identifiers[token], strict=True):
            parameter = nn.Parameter(table.weight[rows].detach().float().clone())
            hooks.append(table.register_forward_hook(_RowsFromParameter(rows[0], parameter)))
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
        needed = 1 + max(max(identifiers[number]) for identifiers in self._identifiers.values())
        if needed > table.num_embeddings:
            rows = table.weight.new_zeros(needed - table.num_embeddings, table.embedding_dim)
            table.weight = nn.Parameter(torch.cat([table.weight.detach(), rows]), requires_grad=False)
            table.num_embeddings = needed
            encoder.config.vocab_size = needed


class _RowsFromParameter:
    """Forward hook of an embedding table: rows that follow each other come from a parameter."""

    def __init__(self, first: int, parameter: nn.Parameter) -> None:
        self.first, self.parameter = first, parameter

    def __call__(self, table: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        count = len(self.parameter)
        own = ((inputs[0] >= self.first) & (inputs[0] < self.first + count)).unsqueeze(-1)
        # A single vector needs no lookup.
        rows = self.parameter
        if count > 1:
            rows = functional.embedding((inputs[0] - self.first).clamp(0, count - 1), self.parameter)
        return torch.where(own, rows.to(output.dtype), output)


def vector_names(token: str, vectors: int, layers: int = 1) -> list[str]:
    """Names a token's vectors for the tokenizers, layer by layer.

    Those of the first layer have the names that diffusers expands a token to (``maybe_convert_prompt``); those of other
    layers never stand in a prompt, and their names cannot be a user's token.
    """
    names = [token if number == 0 else f"{token}_{number}" for number in range(vectors // layers)]
    # Lower case, as CLIP reads.
    later = [f"{name.lower()}|layer{layer}" for layer in range(1, layers) for name in names]
    return names + later


def _add_to_vocabulary(tokenizer: CLIPTokenizer, token: str, where: str) -> int:
    """Adds a token to a tokenizer and gives its id.

    CLIP reads lower case alone, so ``<New1>`` and ``<new1>`` are one token: the second of them is refused.
    """
    remedy = "Choose another token, such as <new1>"
    known = {added.content.lower() for added in tokenizer.added_tokens_decoder.values()}
    if token.lower() in known:
        raise UserError(where, f"already has the token {token} (upper and lower case are one)", remedy)
    unknown = tokenizer.unk_token_id
    if len(split := token_ids(tokenizer, token)) <= 1 and split != [unknown]:
        reason = "which is a word it knows" if split else "of which nothing is left when it is read"
        raise UserError(where, f"cannot take {token} for a new token, {reason}", remedy)
    tokenizer.add_tokens(token)
    identifier = cast("int", tokenizer.convert_tokens_to_ids(token))
    if identifier == unknown or token_ids(tokenizer, f"a photo of {token} cat").count(identifier) != 1:
        raise UserError(where, f"does not keep {token} in one piece", remedy)
    return identifier


def token_ids(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    """Returns the ids of a text without start and end token."""
    return cast("list[int]", tokenizer(text, add_special_tokens=False)["input_ids"])
