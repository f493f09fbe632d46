"""Tokens as diffusers' ``load_textual_inversion`` reads them: one file per concept, which knows its own token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cns_lightning.diffusion.base_source import MINIATURE
from cns_lightning.export.metadata import packed
from cns_lightning.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cns_lightning.export.learned import Learned, LearnedModel

FOLDERS = ("learned_embeds", "learned_embeds_2")
"""One for each text encoder: diffusers takes a file of one tensor, and is called once an encoder."""


def write_learned_embeds(folder: Path, learned: Learned, stems: Mapping[str, str]) -> None:
    """Writes the tokens; each file holds shape (vectors, width), float32, under the token itself.

    Args:
        folder: folder of the export.
        learned: the concepts.
        stems: names of the files, by token.
    """
    for concept in learned.concepts:
        for name, rows in zip(FOLDERS, concept.embeddings, strict=False):
            data = packed({concept.token: rows.float().contiguous()}, {})
            write_atomically(folder / name / f"{stems[concept.token]}.safetensors", data)


def base_lines(model: LearnedModel) -> list[str]:
    """Returns the lines of Python that open the base model as a pipeline ``pipe``, its own LoRA files folded in.

    Files are named without the place they have on this machine.

    Args:
        model: the exported model.
    """
    name, source = model.base_name, model.learned.registry.source
    if name == MINIATURE:
        opened = ["from cns_lightning.miniature import base_model_path", "",
                  "pipe = DiffusionPipeline.from_pretrained(base_model_path())"]  # fmt: skip
    elif model.base_hub_id is None and name.endswith(".safetensors"):
        kind = type(model.base.pipeline()).__name__
        opened = [f"from diffusers import {kind}", "", f'pipe = {kind}.from_single_file("{name}")  # where it is']
    else:
        revision = f', revision="{source.revision}"' if source.revision else ""
        place = "" if model.base_hub_id else "  # where it is"
        opened = ["", f'pipe = DiffusionPipeline.from_pretrained("{name}"{revision}){place}']
    for lora in source.loras:
        opened += [f'pipe.load_lora_weights("{lora.name}")  # where it is',
                   f"pipe.fuse_lora(lora_scale={lora.strength:g})", "pipe.unload_lora_weights()"]  # fmt: skip
    return opened


def loading_lines(learned: Learned, stems: Mapping[str, str]) -> list[str]:
    """Returns the lines of Python that load the tokens into a pipeline ``pipe``, run in the folder of the export.

    Args:
        learned: the concepts.
        stems: names of the files, by token.
    """
    lines = []
    for concept in learned.concepts:
        file = f"{stems[concept.token]}.safetensors"
        lines.append(f'pipe.load_textual_inversion("{FOLDERS[0]}/{file}")')
        if len(concept.embeddings) > 1:
            lines += [
                f'pipe.load_textual_inversion("{FOLDERS[1]}/{file}",',
                "    text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)",
            ]
    return lines
