"""Writing what was learned into a plain diffusers pipeline, so that stock calls understand the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from cns_lightning.registry.record import ConceptRecord

_OLD_END_TOKEN = 2
"""What early CLIP configurations say of the end token; transformers then looks for the highest id of a prompt."""


def write_weights(unet: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Writes weights into a UNet, in its precision and on its device.

    Raises:
        UserError: if the UNet has no such parameters.
    """
    parameters = dict(unet.named_parameters())
    for name, weight in weights.items():
        found = tuple(parameters[name].shape) if name in parameters else None
        if found != tuple(weight.shape):
            problem = f"the UNet's {name} has shape {found}" if found else f"the UNet has no {name}"
            raise UserError("pipeline", f"{problem}, {tuple(weight.shape)} is needed", "Use the run's own base model")
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)


def write_tokens(pipe: Any, records: Sequence[ConceptRecord]) -> None:  # noqa: ANN401 - any diffusers pipeline
    """Teaches tokenizers and text encoders the tokens; tokens they know already get their embeddings anew.

    Raises:
        UserError: if the pipeline has another number of text encoders than the concepts were learned with.
    """
    present = _text_parts(pipe)
    for record in records:
        if record.embeddings and len(record.embeddings) != len(present):
            raise UserError(
                "pipeline",
                f"has {len(present)} text encoders, {record.token} was learned with {len(record.embeddings)}",
                "Use the run's own base model",
            )
    for number, (tokenizer, encoder) in enumerate(present):
        rows: dict[str, Tensor] = {}
        for record in records:
            if record.embeddings:
                rows |= dict(zip(_names(record, number), record.embeddings[number], strict=True))
        _write_rows(tokenizer, encoder, rows)


def _text_parts(pipe: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    """Gives the tokenizers and text encoders a pipeline has, in pairs; SDXL's refiner has only the second."""
    pairs = [(f"tokenizer{ending}", f"text_encoder{ending}") for ending in ("", "_2")]
    found = [tuple(getattr(pipe, name, None) for name in pair) for pair in pairs]
    return [(tokenizer, encoder) for tokenizer, encoder in found if tokenizer is not None and encoder is not None]


def _names(record: ConceptRecord, number: int) -> list[str]:
    # diffusers expands a token to its further vectors by exactly these names (maybe_convert_prompt).
    further = range(1, len(record.embeddings[number]))
    return [record.token, *(f"{record.token}_{vector}" for vector in further)]


def _write_rows(tokenizer: Any, encoder: Any, rows: Mapping[str, Tensor]) -> None:  # noqa: ANN401
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([name for name in rows if name not in known])
    table = encoder.get_input_embeddings().weight
    if len(tokenizer) > len(table):
        trained = table.requires_grad
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        table = encoder.get_input_embeddings().weight
        table.requires_grad_(trained)
    _find_end_by_its_id(tokenizer, encoder)
    with torch.no_grad():
        for name, row in rows.items():
            table[tokenizer.convert_tokens_to_ids(name)] = row.to(table.device, table.dtype)


def _find_end_by_its_id(tokenizer: Any, encoder: Any) -> None:  # noqa: ANN401
    """Lets the encoder pool at the end token; by the old rule it would pool at a learned token, whose id is higher."""
    for part in encoder.modules():
        if getattr(part, "eos_token_id", None) == _OLD_END_TOKEN:
            part.eos_token_id = tokenizer.eos_token_id
    if getattr(encoder.config, "eos_token_id", None) == _OLD_END_TOKEN:
        encoder.config.eos_token_id = tokenizer.eos_token_id
