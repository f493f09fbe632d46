"""A folder for the programs with a page of their own (A1111, Forge, ComfyUI, InvokeAI): weight files, tokens, a card.

NAME.safetensors            weights, with NAME.json and NAME.png for A1111's card
embeddings/STEM.safetensors a token
README.md, samples.jpg      the card
export.json                 what was exported, with checksums
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cns_lightning.export.card import Card, description, write_card
from cns_lightning.export.folder import fresh_folder
from cns_lightning.export.metadata import (
    LORA,
    TEXTUAL_INVERSION,
    FileFacts,
    model_spec,
    network_metadata,
    packed,
    sidecar,
)
from cns_lightning.export.pictures import SamplePictures
from cns_lightning.export.tokens import bundle_tensors, embedding_tensors, in_columns, spelling_rows, token_stems
from cns_lightning.storage import write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cns_lightning.export.learned import Learned, LearnedConcept, LearnedModel

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
Say = Callable[[str], None]


@dataclass(frozen=True)
class PackageOptions:
    """What a user may choose.

    Attributes:
        out: folder of the export.
        name: name of the weight file, and of each concept's behind a dash.
        dtype: precision of the weights: float16, bfloat16 or float32.
        per_concept: write a weight file a concept, which can be weighed one by one.
        bundle: write the tokens into the weight files as well.
        licence: licence of the files; empty where nobody said.
    """

    out: Path
    name: str
    dtype: str = "float16"
    per_concept: bool = False
    bundle: bool = False
    licence: str = ""


@dataclass
class Encoded:
    """A delta as a kind of file holds it.

    Attributes:
        tensors: tensors by key.
        network: ``ss_network_...`` metadata.
        lines: what to tell the user of it.
        notes: further sections of the card, Markdown by heading.
        is_whole: whether the tensors hold all of the delta, in float32.
    """

    tensors: dict[str, Tensor]
    network: dict[str, str]
    lines: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    is_whole: bool = False


Encoder = Callable[[Mapping[str, Tensor], torch.dtype], Encoded]


def network_key(parameter: str) -> str:
    """Returns what programs call a projection of the UNet: ``lora_unet_`` and its name with underscores.

    The one spelling that ComfyUI, A1111, Forge and InvokeAI all place, for SD 1.x, 2.x and SDXL.

    Args:
        parameter: name of its weight in ``unet.named_parameters()``.
    """
    return f"lora_unet_{parameter.removesuffix('.weight').replace('.', '_')}"


def check_package(learned: Learned, options: PackageOptions) -> None:
    """Refuses what cannot be written, before the base model is loaded.

    Raises:
        UserError: if concepts have no part of their own, or tokens are too many for one file.
    """
    if options.per_concept:
        learned.check_adds_up("--per-concept")
    if options.bundle:
        learned.check_moves_weights("--bundle")
        plain = {concept.token: concept.token for concept in learned.concepts}
        for concepts in [[each] for each in learned.concepts] if options.per_concept else [learned.concepts]:
            bundle_tensors(concepts, plain)


def write_package(model: LearnedModel, what: str, options: PackageOptions, encode: Encoder, say: Say) -> list[str]:
    """Writes the folder.

    Args:
        model: what was learned.
        what: the format.
        options: what the user chose.
        encode: makes a file's tensors of a delta.
        say: tells how things stand.

    Returns:
        Lines for the user, the next step last.

    Raises:
        UserError: if files cannot be written, are damaged, or are in the way.
    """
    learned = model.learned
    stems = token_stems([each.token for each in learned.concepts], model.base.tokenizers[0])
    package = _Package(model, options, stems, SamplePictures.of(learned), learned_on(learned))
    facts = {"base_fingerprint": learned.registry.base_fingerprint, "stems": stems}
    notes: dict[str, str] = {}
    lines: list[str] = []
    with fresh_folder(options.out, what, facts) as folder:
        for name, concepts, read_delta in package.networks():
            say(f"writing {name}.safetensors")
            delta = read_delta()
            encoded = encode(delta, DTYPES[options.dtype])
            size = package.write_network(folder, name, concepts, encoded)
            lines += [f"{options.out / name}.safetensors: {size / 1e6:.1f} MB, {options.dtype}", *encoded.lines]
            if encoded.is_whole and not options.per_concept:
                lines.append(f"  at strength 1 {said_of_bits(model.count_inexact(delta))}")
            notes |= {_heading(heading, name, options.per_concept): text for heading, text in encoded.notes.items()}
        package.write_tokens(folder)
        card = Card(options.name, package.use(), stems, options.licence, _tags(what), notes | package.notes())
        write_card(folder, model, card, package.pictures)
    return [*lines, *package.closing_lines()]


def said_of_bits(inexact: int) -> str:
    """Says how exactly weights come back.

    Args:
        inexact: number of weights that do not come back bit for bit.
    """
    if not inexact:
        return "every weight is the run's own, bit for bit, where the base model is loaded in float32"
    return f"every weight is the run's own but for the last bit of {inexact:,}, where the base model is in float32"


def _heading(heading: str, name: str, per_concept: bool) -> str:
    return f"{heading}: {name}" if per_concept else heading


def _tags(what: str) -> tuple[str, ...]:
    return ("text-to-image", "stable-diffusion", "lora" if what == "lora" else "lycoris", "textual-inversion")


def learned_on(learned: Learned) -> str:
    """Returns when the last of the concepts was learned, ISO 8601, UTC: when its file was written."""
    written = max((learned.folder.registry / entry.file).stat().st_mtime for entry in learned.registry.entries)
    return datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@dataclass(frozen=True)
class _Package:
    model: LearnedModel
    options: PackageOptions
    stems: dict[str, str]
    pictures: SamplePictures
    date: str

    def networks(self) -> list[tuple[str, Sequence[LearnedConcept], Callable[[], dict[str, Tensor]]]]:
        """Returns name, concepts and delta of every weight file."""
        learned, name = self.model.learned, self.options.name
        if not learned.moves_weights:
            return []
        if not self.options.per_concept:
            return [(name, learned.concepts, self.model.delta)]
        return [
            (self.name_of(each), [each], lambda token=each.token: self.model.delta_of(token))
            for each in learned.concepts
            if each.moves_weights
        ]

    def name_of(self, concept: LearnedConcept) -> str:
        return f"{self.options.name}-{self.stems[concept.token]}"

    def facts(self, title: str, kind: str, concepts: Sequence[LearnedConcept]) -> FileFacts:
        learned = self.model.learned
        return FileFacts(
            title=title,
            kind=kind,
            family=self.model.family,
            base_name=self.model.base_name,
            base_fingerprint=learned.registry.base_fingerprint,
            concepts=concepts,
            stems=self.stems,
            description=description(learned, concepts),
            date=self.date,
            licence=self.options.licence,
        )

    def write_network(self, folder: Path, name: str, concepts: Sequence[LearnedConcept], encoded: Encoded) -> int:
        """Writes a weight file and what A1111 shows of it; returns the file's size in bytes."""
        tensors = dict(encoded.tensors)
        if self.options.bundle:
            tensors |= bundle_tensors(concepts, self.stems)
        facts = self.facts(name, LORA, concepts)
        data = packed(tensors, network_metadata(facts, encoded.network))
        write_atomically(folder / f"{name}.safetensors", data)
        write_json(folder / f"{name}.json", sidecar(facts))
        preview = self.pictures.preview(concepts[0].token if len(concepts) == 1 else None)
        if preview is not None:
            write_atomically(folder / f"{name}.png", preview)
        return len(data)

    def write_tokens(self, folder: Path) -> None:
        for concept in self.model.learned.concepts:
            stem = self.stems[concept.token]
            facts = self.facts(stem, TEXTUAL_INVERSION, [concept])
            write_atomically(
                folder / "embeddings" / f"{stem}.safetensors", packed(embedding_tensors(concept), model_spec(facts))
            )

    def calls(self) -> str:
        """Returns what loads the weight files, in a prompt of A1111 and Forge; empty where there are none.

        LoRA files that were folded into the run's base model come first: their differences add up like the others.
        """
        base = [(each.stem, each.strength) for each in self.model.base.origin.loras]
        names = [*base, *((name, 1.0) for name, _, _ in self.networks())]
        return "".join(f"<lora:{name}:{strength:g}> " for name, strength in names)

    def example(self) -> str:
        concept = self.model.learned.concepts[-1]
        return self.calls() + concept.prompt.replace(concept.token, self.stems[concept.token])

    def use(self) -> str:
        tokens = (
            "- `embeddings/`: into `embeddings` (A1111, Forge) or `models/embeddings` (ComfyUI); import in InvokeAI."
        )
        names = ", ".join(f"`{name}.safetensors`" for name, _, _ in self.networks())
        weights = (
            f"- {names}: into `models/Lora` (A1111, Forge) or `models/loras` (ComfyUI, node Load LoRA), with the files "
            "of the same name; import in InvokeAI. Use them at strength 1.\n"
        )
        example = f"Then write, in A1111 and Forge: `{self.example()}`"
        return f"{weights if names else ''}{tokens}\n\n{example}"

    def notes(self) -> dict[str, str]:
        if not self.options.per_concept or len(self.networks()) < 2:
            return {}
        text = (
            "Each file holds what one concept adds to the weights, so each has a strength of its own, and all of them "
            "together at strength 1 are the whole model. A later concept was learned on top of the earlier ones: "
            "without them it is drawn a little differently."
        )
        return {"One file per concept": text}

    def closing_lines(self) -> list[str]:
        lines = ["", *in_columns(spelling_rows(self.stems)), ""]
        if not self.model.family.is_known:
            lines.append(
                f"{self.model.base_name} reads text states {self.model.base.text_width} wide, for which other programs "
                "have no base model; the files are right in form alone"
            )
        out = self.options.out
        files = f"{out}/{self.options.name}{'-*' if self.options.per_concept else '.*'}"
        weights = f"{files} into models/Lora (A1111, Forge) or models/loras (ComfyUI), "
        tokens = f"{out}/embeddings/* into embeddings (models/embeddings in ComfyUI)"
        lines.append(
            f"next: copy {weights if self.networks() else ''}{tokens}, choose the base model {self.model.base_name}, "
            f'and write "{self.example()}"; {out}/README.md says more'
        )
        return lines
