"""``diffusers``: the whole pipeline as a folder that stock diffusers opens, and the tokens for other pipelines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from cns_lightning.diffusion.loading import quiet_loading
from cns_lightning.diffusion.text_encoder_names import PREFIX
from cns_lightning.export.card import Card, write_card
from cns_lightning.export.folder import fresh_folder
from cns_lightning.export.package import DTYPES
from cns_lightning.export.pictures import SamplePictures
from cns_lightning.export.tokens import token_stems
from cns_lightning.export.vectors import FOLDERS, loading_lines, write_learned_embeds
from cns_lightning.storage import read_json, write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cns_lightning.export.learned import Learned
    from cns_lightning.export.package import PackageOptions, Say

FORMAT = "diffusers"
PLACES = ("_name_or_path", "name_or_path")
"""Keys under which the libraries write where a part was read from on this machine."""
NEVER_PREFIXED = ("text_projection.", "logit_scale")


def export_diffusers(learned: Learned, options: PackageOptions, base_model: str | None, say: Say) -> list[str]:
    """Writes the pipeline with all exported concepts in it.

    Args:
        learned: the exported concepts.
        options: what the user chose.
        base_model: where the base model is now; None where the run had it.
        say: tells how things stand.

    Returns:
        Lines for the user, the next step last.

    Raises:
        UserError: if files are damaged or in the way, or cannot be written.
    """
    model = learned.load(base_model)
    stems = token_stems([each.token for each in learned.concepts], model.base.tokenizers[0])
    pipeline = model.folded()
    model.base.to(dtype=DTYPES[options.dtype])
    facts = {"base_fingerprint": learned.registry.base_fingerprint, "stems": stems}
    say(f"writing the pipeline to {options.out}")
    with fresh_folder(options.out, FORMAT, facts) as folder:
        with quiet_loading():
            pipeline.save_pretrained(folder, safe_serialization=True)
        for part in sorted(folder.glob("text_encoder*")):
            prefix_names(part)
        for part in sorted(folder.glob("tokenizer*")):
            write_vocabulary(part)
        for path in [folder / "model_index.json", *sorted(folder.glob("*/*config.json"))]:
            forget_places(path)
        write_learned_embeds(folder, learned, stems)
        card = Card(options.name, _use(learned, stems), stems, options.licence, ("text-to-image", "diffusers"))
        write_card(folder, model, card, SamplePictures.of(learned))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    prompt = learned.concepts[-1].prompt
    return [
        f"{options.out}: {size / 1e6:.1f} MB, {options.dtype}; tokens: {', '.join(stems)}",
        f"next: in Python, diffusers.DiffusionPipeline.from_pretrained({str(options.out)!r})({prompt!r}).images[0]",
    ]


def _use(learned: Learned, stems: Mapping[str, str]) -> str:
    folders = " and ".join(f"`{name}/`" for name in FOLDERS[: len(learned.concepts[0].embeddings)])
    return "\n".join(
        [
            "In this folder:",
            "",
            "```python",
            "from diffusers import DiffusionPipeline",
            "",
            'pipe = DiffusionPipeline.from_pretrained(".")',
            f'pipe("{learned.concepts[-1].prompt}").images[0]',
            "```",
            "",
            f"The tokens are in the pipeline already. {folders} holds each of them for other pipelines of the base "
            "model, without the weights that belong to it:",
            "",
            "```python",
            *loading_lines(learned, stems),
            "```",
        ]
    )


def prefix_names(folder: Path) -> None:
    """Puts ``text_model.`` before the tensors' names of a text encoder.

    transformers before 5.6 reads no other names, and starts the encoder at random with a warning alone; later versions
    read both.

    Args:
        folder: folder of the text encoder.
    """
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        named = {
            name if name.startswith((PREFIX, *NEVER_PREFIXED)) else f"{PREFIX}{name}": tensor
            for name, tensor in tensors.items()
        }
        if named.keys() != tensors.keys():
            save_file(named, path, metadata={"format": "pt"})
    for path in sorted(folder.glob("*.safetensors.index.json")):
        content = read_json(path)
        content["weight_map"] = {
            name if name.startswith((PREFIX, *NEVER_PREFIXED)) else f"{PREFIX}{name}": file
            for name, file in content["weight_map"].items()
        }
        write_json(path, content)


def write_vocabulary(folder: Path) -> None:
    """Writes ``vocab.json``, ``merges.txt`` and ``added_tokens.json`` beside ``tokenizer.json``.

    transformers 4 cannot open a CLIP tokenizer without them, transformers 5 does not write them.

    Args:
        folder: folder of the tokenizer.
    """
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary: dict[str, int] = content["model"]["vocab"]
    merges = [each if isinstance(each, str) else " ".join(each) for each in content["model"]["merges"]]
    added = {each["content"]: each["id"] for each in content["added_tokens"] if each["content"] not in vocabulary}
    write_atomically(folder / "vocab.json", json.dumps(vocabulary, ensure_ascii=False).encode())
    write_atomically(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]).encode())
    write_json(folder / "added_tokens.json", added)


def forget_places(path: Path) -> None:
    """Takes out of a JSON file where the model was read from on this machine.

    Args:
        path: path of the file.
    """
    content = read_json(path)
    clean = _without_places(content)
    if clean != content:
        write_json(path, clean)


def _without_places(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_places(value) for key, value in content.items() if key not in PLACES}
    return [_without_places(each) for each in content] if isinstance(content, list) else content
