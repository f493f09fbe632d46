"""Writing what was learned into a plain diffusers pipeline, so that stock calls understand the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cns_lightning.diffusion.text import ConceptTokens, vector_names
from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import DiffusionPipeline
    from torch import Tensor

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.registry.record import ConceptRecord
    from cns_lightning.registry.registry import NeuronRegistry

_REMEDY = "Use a pipeline of the base model that the concepts were learned on"


def load_base(registry: NeuronRegistry, base_model: str | None = None) -> BaseModel:
    """Loads the base model that a registry's concepts were learned on, float32, on the CPU.

    Args:
        registry: the concepts.
        base_model: where the base model is now; None where it was.

    Raises:
        UserError: if it is not to be found or is another one, or what was folded into it is gone or has changed.
    """
    from cns_lightning.diffusion.base_model import BaseModel

    source = registry.source.at(base_model)
    base = BaseModel.load(source)
    registry.check_base(base.fingerprints(), base_model or "what is found there now")
    return base


def pretrained_weights(registry: NeuronRegistry) -> dict[str, Tensor]:
    """Returns the base model's key and value weights by parameter name, float32; raises what `load_base` raises."""
    from cns_lightning.diffusion.cross_attention import key_value_projections

    unet = load_base(registry).unet
    return {name: each.weight.detach() for name, each in key_value_projections(unet).items()}


def write_tokens(pipe: DiffusionPipeline, source: str, records: Sequence[ConceptRecord]) -> None:
    """Teaches a pipeline's tokenizers and text encoders the tokens; those they know get their embeddings anew.

    Freezes the pipeline's parts, as every base model is.

    Args:
        pipe: pipeline of any kind that has the parts of a base model.
        source: name of the base model, for messages.
        records: the concepts.

    Raises:
        UserError: if the pipeline has another number of text encoders than the concepts were learned with, or a token
            is a word of its vocabulary.
    """
    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.diffusion.layerwise import LayerwiseText

    base = BaseModel(pipe, source)
    vectors: dict[str, list[Tensor]] = {}
    for record in records:
        if record.embeddings:
            vectors |= _named_vectors(record, len(base.text_encoders))
    known = {token.content for token in base.tokenizers[0].added_tokens_decoder.values()}
    new = {token: rows for token, rows in vectors.items() if token not in known}
    if new:
        ConceptTokens(base).add_all(new)
    for token in vectors.keys() & known:
        _write_rows(base, token, vectors[token])
    for record in records:
        if record.layers > 1:
            names = list(_named_vectors(record, len(base.text_encoders)))
            LayerwiseText.of(base).add(base.tokenizers[0].convert_tokens_to_ids(names))  # type: ignore[arg-type]


def _named_vectors(record: ConceptRecord, encoders: int) -> dict[str, list[Tensor]]:
    if len(record.embeddings) != encoders:
        problem = f"has {encoders} text encoders, {record.token} was learned with {len(record.embeddings)}"
        raise UserError("pipeline", problem, _REMEDY)
    names = vector_names(record.token, len(record.embeddings[0]), record.layers)
    return {name: list(rows) for name, rows in zip(names, zip(*record.embeddings, strict=True), strict=True)}


def _write_rows(base: BaseModel, token: str, rows: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for tokenizer, encoder, row in zip(base.tokenizers, base.text_encoders, rows, strict=True):
            table = encoder.get_input_embeddings().weight
            table[tokenizer.convert_tokens_to_ids(token)] = row.to(table)  # type: ignore[index,operator]
