"""The registry on disk: names, form, versions and checks.

    registry.json              format version, base model, ordered concepts, SHA-256 of every file; written last
    000-new1.safetensors       mask/packed, mask/columns, values, embeddings/0, ..., extra/NAME; header metadata:
                               format_version, token, class_word, kind, prompt, counts, metadata, mask
    general.safetensors        mask/packed, mask/columns; header metadata: format_version, fingerprint, metadata, mask

How a mask is packed stands in `neurons.mask_codec`; versions 1 and 2 have mask/NAME.bits and mask/NAME.shape in its
place. A concept is one line of ``registry.json``. Equal content gives equal bytes, of one build of zlib. Files are
named by a number, which is a concept's place in the learning order, and what is left of its token when everything but
letters, digits and - is dropped.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.diffusion.base_source import BaseSource
from cns_lightning.errors import Problems, UserError
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.mask_codec import pack_mask, unpack_mask
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.storage import read_bytes, read_json, tensor_bytes, tensors_from_bytes, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

FORMAT_VERSION = 3
"""3 compresses masks; 2 keeps the facts of a file in one JSON text of its header, 1 in a key for each. All are read."""
READABLE = ("1", "2", "3")
INDEX = "registry.json"
GENERAL = "general.safetensors"
DAMAGED_REMEDY = "Restore the file from a copy; or undo with `concepts --rollback`, then run fit again to learn it anew"
DELETE_REMEDY = "Restore the file from a copy, or delete it: fit selects the general neurons anew"

_CONCEPT_FILE = re.compile(r"^\d{3,}-[A-Za-z0-9-]+\.safetensors$")
"""As `file_name` names them; a copy of one, such as ``000-new1 copy.safetensors``, is the user's."""


@dataclass(frozen=True)
class ConceptEntry:
    """What ``registry.json`` says of one concept, enough to list it without opening its file.

    Attributes:
        file: name within the registry's folder.
        sha256: of the file.
        bytes: size of the file.
        counts: neurons, and the weights they were chosen from.
    """

    token: str
    class_word: str
    kind: str
    prompt: str
    file: str
    sha256: str
    bytes: int
    counts: dict[str, int] = field(hash=False)


@dataclass(frozen=True)
class GeneralEntry:
    """What ``registry.json`` says of the general neurons.

    Attributes:
        fingerprint: fingerprint of the model, prompts and settings they follow from.
        metadata: how they were chosen: rule, threshold, density.
    """

    fingerprint: str
    file: str
    sha256: str
    bytes: int
    counts: dict[str, int]
    metadata: dict[str, str]


@dataclass(frozen=True)
class GeneralNeurons:
    """Neurons that are active for everything, and what they follow from.

    Attributes:
        mask: the neurons.
        fingerprint: fingerprint of model, prompts and settings; a run with another fingerprint selects anew.
        metadata: how they were chosen: rule, threshold, density.
    """

    mask: NeuronMask
    fingerprint: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Index:
    """The content of ``registry.json``.

    Attributes:
        source: where the base model comes from, and what is folded into it.
        base_fingerprint: fingerprint of the base model.
        unet_parameters: number of parameters of the base model's UNet, if it was told.
        fused_by: class path of the method that makes one model of the concepts; None where they simply add up.
        rare_words: words of the base model from which tokens start, best first; empty where none does.
    """

    source: BaseSource
    base_fingerprint: str
    unet_parameters: int | None = None
    general: GeneralEntry | None = None
    concepts: tuple[ConceptEntry, ...] = ()
    fused_by: str | None = None
    rare_words: tuple[str, ...] = ()

    def entries(self) -> list[ConceptEntry | GeneralEntry]:
        """Returns every file's entry."""
        return [*([self.general] if self.general else []), *self.concepts]

    def check_base(self, fingerprints: Sequence[str], base_model: str, where: str) -> None:
        """Refuses a base model the concepts were not learned on.

        Args:
            fingerprints: what `BaseModel.fingerprints` returns for the base model in use.
            base_model: its name, for the message.
            where: place of the registry, for the message.

        Raises:
            UserError: if it is another one.
        """
        own, now = self.base_fingerprint, fingerprints[0][:12]
        if own not in fingerprints:
            problem = f"was learned on the base model {self.source.said} (fingerprint {own[:12]})"
            remedy = f"Use {self.source.place} in the version it was learned on, or another --run folder"
            raise UserError(where, f"{problem}, {base_model} is another (fingerprint {now})", remedy)


def file_name(number: int, token: str) -> str:
    """Names a concept's file, for example ``000-new1.safetensors``."""
    return f"{number:03d}-{re.sub(r'[^A-Za-z0-9-]', '', token) or 'concept'}.safetensors"


def next_number(concepts: Iterable[ConceptEntry]) -> int:
    """Returns the number of the next concept's file: one more than the highest, so that files keep their names."""
    return max((int(entry.file.split("-")[0]) for entry in concepts), default=-1) + 1


def encode_record(record: ConceptRecord) -> bytes:
    """Packs a concept into its file's content."""
    masks, packing = _packed(record.mask)
    tensors: dict[str, Tensor] = {"values": record.values, **masks}
    tensors |= {f"embeddings/{number}": rows for number, rows in enumerate(record.embeddings)}
    for name, (up, down) in record.factors.items():
        tensors |= {f"up/{name}": up, f"down/{name}": down}
    tensors |= {f"extra/{name}": tensor for name, tensor in record.extra.items()}
    facts = {
        "format_version": str(FORMAT_VERSION),
        "token": record.token,
        "class_word": record.class_word,
        "kind": record.kind,
        "prompt": record.prompt,
        "counts": json.dumps(record.counts),
        "metadata": json.dumps(record.metadata, sort_keys=True, ensure_ascii=False),
        **packing,
    }
    return tensor_bytes(tensors, facts)


def decode_record(data: bytes, source: str, has_neurons: bool = True) -> ConceptRecord:
    """Unpacks a concept.

    Args:
        data: content of its file.
        source: the file's path, for messages.
        has_neurons: False leaves out what the concept moves, which takes most of the time.

    Raises:
        UserError: if the content is not that of a concept.
    """
    tensors, facts = tensors_from_bytes(data, source)
    check_version(facts.get("format_version"), source)
    if not has_neurons:
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("embeddings/")}
    try:
        embeddings, down = _group(tensors, "embeddings/"), _group(tensors, "down/")
        return ConceptRecord(
            token=facts["token"],
            class_word=facts["class_word"],
            kind=facts["kind"],
            prompt=facts["prompt"],
            mask=_unpacked(tensors, facts),
            values=tensors.get("values", torch.zeros(0, dtype=torch.float16)),
            embeddings=[embeddings[str(number)] for number in range(len(embeddings))],
            factors={name: (up, down[name]) for name, up in sorted(_group(tensors, "up/").items())},
            extra=_group(tensors, "extra/"),
            metadata=json.loads(facts["metadata"]),
        )
    except (KeyError, ValueError) as error:
        raise UserError(source, f"does not hold a concept ({error})", DAMAGED_REMEDY) from error


def _packed(mask: NeuronMask | None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns a mask's tensors and what the header says of them; nothing for none."""
    if mask is None:
        return {}, {}
    tensors, about = pack_mask(mask)
    return {f"mask/{name}": tensor for name, tensor in tensors.items()}, {"mask": json.dumps(about)}


def _unpacked(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> NeuronMask | None:
    """Returns the mask of a file of any version, None if it has none; raises KeyError and ValueError."""
    found = _group(tensors, "mask/")
    if not found:
        return None
    return unpack_mask(found, json.loads(facts["mask"])) if "mask" in facts else NeuronMask.from_tensors(found)


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def encode_general(general: GeneralNeurons) -> bytes:
    """Packs the general neurons into their file's content."""
    tensors, packing = _packed(general.mask)
    facts = {
        "format_version": str(FORMAT_VERSION),
        "fingerprint": general.fingerprint,
        "metadata": json.dumps(general.metadata, sort_keys=True, ensure_ascii=False),
        **packing,
    }
    return tensor_bytes(tensors, facts)


def decode_general(data: bytes, source: str) -> GeneralNeurons:
    """Unpacks the general neurons.

    Raises:
        UserError: if the content is something else.
    """
    tensors, facts = tensors_from_bytes(data, source)
    check_version(facts.get("format_version"), source)
    try:
        mask = _unpacked(tensors, facts)
        if mask is None:
            raise ValueError("no mask")
        return GeneralNeurons(mask, facts["fingerprint"], json.loads(facts["metadata"]))
    except (KeyError, ValueError) as error:
        raise UserError(source, f"does not hold general neurons ({error})", DELETE_REMEDY) from error


def check_version(found: object, source: str) -> None:
    """Refuses files of another format version.

    Raises:
        UserError: naming both versions.
    """
    if str(found) not in READABLE:
        raise UserError(
            source,
            f"has format version {found}, this program reads versions {' and '.join(READABLE)}",
            "Use the version of cns-lightning that wrote it",
        )


def write_index(folder: Path, index: Index) -> None:
    """Writes ``registry.json`` atomically."""
    write_atomically(folder / INDEX, index_bytes(index))


def index_bytes(index: Index) -> bytes:
    """Returns the content of ``registry.json``: one JSON text, with a line for each concept at its end."""
    facts = {
        "format_version": FORMAT_VERSION,
        "base_model": {
            "id": index.source.place,
            "fingerprint": index.base_fingerprint,
            "unet_parameters": index.unet_parameters,
            **index.source.plain(),
            **({"rare_words": list(index.rare_words)} if index.rare_words else {}),
        },
        "general": vars(index.general) if index.general else None,
        **({"fused_by": index.fused_by} if index.fused_by else {}),
    }
    head = json.dumps(facts, indent=2, ensure_ascii=False).removesuffix("\n}")
    lines = ",\n".join(f"    {_line(entry)}" for entry in index.concepts)
    concepts = f"[\n{lines}\n  ]" if lines else "[]"
    return f'{head},\n  "concepts": {concepts}\n}}\n'.encode()


@lru_cache(maxsize=4096)
def _line(entry: ConceptEntry) -> str:
    # Kept: to write every line anew at every save cost more than everything else that a save does.
    return json.dumps(vars(entry), ensure_ascii=False)


def read_index(folder: Path) -> Index:
    """Reads ``registry.json``; a missing file of general neurons counts as none, they can be selected anew.

    Raises:
        UserError: if there is not a registry, or ``registry.json`` is damaged or of another version.
    """
    path = folder / INDEX
    if not path.exists():
        raise UserError(str(folder), f"holds no {INDEX}", "Give the run folder of a run that has learned something")
    content = read_json(path)
    check_version(content.get("format_version") if isinstance(content, dict) else None, str(path))
    index = _index_of(content, str(path))
    if index.general and not (folder / index.general.file).exists():
        return replace(index, general=None)
    return index


def check_files(folder: Path, index: Index) -> None:
    """Checks that every file is there with the right size.

    Quick, because it opens none; `read_checked` compares contents when they are read.

    Raises:
        UserError: naming every file that is not.
    """
    problems = Problems()
    for entry in index.entries():
        file = folder / entry.file
        if not file.exists():
            problems.add(str(file), f"is missing, {INDEX} names it", remedy_for(entry))
        elif file.stat().st_size != entry.bytes:
            problems.add(str(file), f"has {file.stat().st_size} bytes instead of {entry.bytes}", remedy_for(entry))
    problems.raise_if_any()


def remedy_for(entry: ConceptEntry | GeneralEntry) -> str:
    """Says what to do about a damaged or missing file."""
    return DELETE_REMEDY if isinstance(entry, GeneralEntry) else DAMAGED_REMEDY


def _index_of(content: dict[str, Any], source: str) -> Index:
    try:
        general = content["general"]
        return Index(
            source=BaseSource.from_plain(content["base_model"]["id"], content["base_model"]),
            base_fingerprint=content["base_model"]["fingerprint"],
            unet_parameters=content["base_model"]["unet_parameters"],
            general=GeneralEntry(**general) if general else None,
            concepts=tuple(ConceptEntry(**entry) for entry in content["concepts"]),
            fused_by=content.get("fused_by"),
            rare_words=tuple(content["base_model"].get("rare_words", ())),
        )
    except (KeyError, TypeError) as error:
        raise UserError(source, f"is not a registry ({error})", "Restore the file from a copy") from error


def read_checked(folder: Path, entry: ConceptEntry | GeneralEntry) -> bytes:
    """Reads a file and compares it with its checksum before anything uses it.

    Raises:
        UserError: if it is missing or damaged.
    """
    path = folder / entry.file
    data = read_bytes(path)
    if sha256_of_bytes(data) != entry.sha256:
        raise UserError(str(path), f"is damaged: its SHA-256 is not the one in {INDEX}", remedy_for(entry))
    return data


def sha256_of_bytes(data: bytes) -> str:
    """Returns the SHA-256 of a file's content, as hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def remove_unnamed(folder: Path, index: Index) -> None:
    """Deletes the registry's files that it does not name: what an undo or an interrupted save left."""
    named = {entry.file for entry in index.entries()}
    for path in folder.iterdir():
        if (path.name == GENERAL or _CONCEPT_FILE.match(path.name)) and path.name not in named:
            path.unlink(missing_ok=True)
