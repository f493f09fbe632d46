"""The headers of safetensors files that other programs read: ModelSpec, sd-scripts' keys, and our own.

Source: https://github.com/Stability-AI/ModelSpec; ``library/sai_model_spec.py`` and ``train_network.py`` of sd-scripts.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save as save_tensors

from cns_lightning.export.family import SD1, VELOCITY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from cns_lightning.export.family import Family
    from cns_lightning.export.learned import LearnedConcept

FORMAT_VERSION = "1"
STABILITY = "https://github.com/Stability-AI/generative-models"
LORA, TEXTUAL_INVERSION = "lora", "textual-inversion"


@dataclass(frozen=True)
class FileFacts:
    """What the header of an exported file says.

    Attributes:
        title: name of the file, without its ending.
        kind: ``lora`` or ``textual-inversion``.
        family: base models it is for.
        base_name: name of the base model.
        base_fingerprint: fingerprint of the base model in the run's registry.
        concepts: the concepts in the file, in learning order.
        stems: how other programs call their tokens, by token.
        description: one sentence.
        date: when the last of them was learned, ISO 8601.
        licence: licence of the file; empty where nobody said.
    """

    title: str
    kind: str
    family: Family
    base_name: str
    base_fingerprint: str
    concepts: Sequence[LearnedConcept]
    stems: Mapping[str, str]
    description: str
    date: str
    licence: str = ""

    def words(self) -> list[str]:
        """Returns what calls each concept: its stem, with its class word where it was learned with it."""
        return [
            f"{self.stems[each.token]} {each.class_word}" if each.says_class_word else self.stems[each.token]
            for each in self.concepts
        ]

    def prompts(self) -> list[str]:
        """Returns a prompt for each concept, as other programs read it."""
        return [each.prompt.replace(each.token, self.stems[each.token]) for each in self.concepts]


def model_spec(facts: FileFacts) -> dict[str, str]:
    """Returns the metadata of ModelSpec 1.0.1, and our own."""
    family = facts.family
    is_stability = family.is_xl or facts.kind == TEXTUAL_INVERSION
    resolution = f"{family.resolution}x{family.resolution}"
    found = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{family.architecture}/{facts.kind}",
        "modelspec.implementation": STABILITY if is_stability else "diffusers",
        "modelspec.title": facts.title,
        "modelspec.resolution": resolution,
        "modelspec.date": facts.date,
        "modelspec.description": facts.description,
        "modelspec.tags": ", ".join(dict.fromkeys(each.class_word for each in facts.concepts)),
        "modelspec.trigger_phrase": ", ".join(facts.words()),
        "modelspec.usage_hint": f"Write: {'; '.join(facts.prompts())}",
        "cns.format_version": FORMAT_VERSION,
        "cns.base_fingerprint": facts.base_fingerprint,
        "cns.concepts": json.dumps(
            [
                {"token": each.token, "stem": facts.stems[each.token], "class_word": each.class_word,
                 "kind": each.kind, "prompt": each.prompt}
                for each in facts.concepts
            ],
            ensure_ascii=False,
        ),
    }  # fmt: skip
    if family.prediction in ("epsilon", VELOCITY):
        found["modelspec.prediction_type"] = "v" if family.prediction == VELOCITY else "epsilon"
    return found | ({"modelspec.license": facts.licence} if facts.licence else {})


def network_metadata(facts: FileFacts, network: Mapping[str, str]) -> dict[str, str]:
    """Returns the metadata of a weight file: ModelSpec's, and what A1111 shows and needs.

    Args:
        facts: what the file holds.
        network: ``ss_network_...`` keys of the kind of file.
    """
    return {
        **model_spec(facts),
        **facts.family.version_keys,
        "ss_output_name": facts.title,
        "ss_sd_model_name": facts.base_name,
        # SD 1.x and SDXL were taught with the states of the last layer here; a skipped one would be another model.
        **({"ss_clip_skip": "1"} if facts.family.name == SD1 else {}),
        "ss_tag_frequency": json.dumps({"cns": dict.fromkeys(facts.words(), 1)}, ensure_ascii=False),
        **network,
    }


def sidecar(facts: FileFacts) -> dict[str, object]:
    """Returns A1111's file beside a weight file: a click on the card writes the activation text into the prompt."""
    return {
        "description": facts.description,
        "sd version": facts.family.name,
        "activation text": ", ".join(facts.words()),
        "preferred weight": 1,
        "negative text": "",
        "notes": f"For {facts.base_name}. Prompts: {'; '.join(facts.prompts())}",
    }


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Packs tensors and metadata into the safetensors format, a key each, as other programs read them.

    Equal content gives equal bytes: the format's own writer puts several keys into an order that changes from call to
    call. The hash that ModelSpec asks for, of the tensors alone, is added.

    Args:
        tensors: tensors by name, on the CPU.
        metadata: text by name.
    """
    # Cloned: the format has no place for tensors that share memory.
    data = save_tensors({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()})
    start = 8 + int.from_bytes(data[:8], "little")
    named: dict[str, object] = json.loads(data[8:start])
    digest = hashlib.sha256(memoryview(data)[start:]).hexdigest()
    facts = dict(sorted({**metadata, "format": "pt", "modelspec.hash_sha256": f"0x{digest}"}.items()))
    header = json.dumps({"__metadata__": facts, **named}, separators=(",", ":"), ensure_ascii=False).encode()
    # Tensors start at a multiple of eight bytes.
    header = header.ljust(8 * math.ceil(len(header) / 8))
    return b"".join((len(header).to_bytes(8, "little"), header, memoryview(data)[start:]))
