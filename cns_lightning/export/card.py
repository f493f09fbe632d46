"""The card of an export: what it is, how to use it, what it was made with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from cns_lightning.export.pictures import SHEET
from cns_lightning.export.tokens import spelling_rows
from cns_lightning.methods.discovery import display_name_of
from cns_lightning.runs.config import RunConfig
from cns_lightning.sequences.sequence import SETTINGS
from cns_lightning.storage import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cns_lightning.export.learned import Learned, LearnedConcept, LearnedModel
    from cns_lightning.export.pictures import SamplePictures

UNKNOWN_LICENCE = (
    "Not stated. Fill it in, here and above (`license:`), before you pass this on; the licence of the base model "
    "counts as well."
)
LICENCE_FIELD = "# license: fill in before you pass this on"


@dataclass(frozen=True)
class Card:
    """What the card says besides the concepts.

    Attributes:
        title: name of the export.
        use: how to use it, Markdown.
        notes: further sections, Markdown by heading.
        stems: how other programs call the tokens, by token.
        licence: licence; empty where nobody said.
        tags: tags for the hub.
    """

    title: str
    use: str
    stems: Mapping[str, str]
    licence: str = ""
    tags: Sequence[str] = ("text-to-image", "stable-diffusion")
    notes: Mapping[str, str] = field(default_factory=dict)


def write_card(folder: Path, model: LearnedModel, card: Card, pictures: SamplePictures) -> None:
    """Writes ``README.md``, and a sheet of sample pictures where there are any; raises what `write_atomically` raises.

    Args:
        folder: folder of the export.
        model: the exported model.
        card: what the card says.
        pictures: pictures that the run drew.
    """
    sheet = pictures.sheet()
    if sheet is not None:
        write_atomically(folder / SHEET, sheet)
    write_atomically(folder / "README.md", card_text(model, card, sheet is not None).encode())


def card_text(model: LearnedModel, card: Card, has_pictures: bool) -> str:
    """Returns the card, Markdown with the header that the hub reads.

    Args:
        model: the exported model.
        card: what else it says.
        has_pictures: whether there is a sheet of sample pictures beside it.
    """
    learned, family = model.learned, model.family
    said, side = description(learned, learned.concepts, "`"), family.resolution
    heading, *spelled = spelling_rows(card.stems)
    concepts = [
        ("token", "what it is", "kind", "a prompt"),
        *((f"`{c.token}`", c.class_word, c.kind, f"`{c.prompt}`") for c in learned.concepts),
    ]
    sections = [
        _header(model, card),
        f"# {card.title}",
        f"{said} For {model.base_name}{model.folded_in} ({family.title}, {side} x {side} pixels).",
        *([f"![what it draws]({SHEET})"] if has_pictures else []),
        "## Concepts, in learning order",
        _table(concepts),
        "## Use",
        card.use,
        "## How to write the tokens",
        _table([heading, *([f"`{cell}`" for cell in row] for row in spelled)]),
        "In ComfyUI a comma may stand right behind a token, a full stop may not.",
    ]
    for heading, text in card.notes.items():
        sections += [f"## {heading}", text]
    settings = settings_of(learned)
    if settings:
        sections += ["## Made with", _table([("setting", "value"), *settings])]
    sections += ["## Base model", f"{model.base_name}, fingerprint `{learned.registry.base_fingerprint}`."]
    if model.folded_in:
        remedy = "the format `diffusers` holds it, the others need the file beside theirs, at the same strength"
        sections += [f"The concepts were learned on it{model.folded_in}: {remedy}."]
    sections += ["## Licence", card.licence or UNKNOWN_LICENCE]
    return "\n\n".join(sections) + "\n"


def _header(model: LearnedModel, card: Card) -> str:
    facts: dict[str, Any] = {"tags": list(card.tags), "pipeline_tag": "text-to-image"}
    if model.base_hub_id:
        facts["base_model"] = model.base_hub_id
    facts["instance_prompt"] = model.learned.concepts[0].prompt
    if card.licence:
        facts["license"] = card.licence
    field_to_fill = "" if card.licence else f"{LICENCE_FIELD}\n"
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}{field_to_fill}---"


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


def description(learned: Learned, concepts: Sequence[LearnedConcept], quote: str = "") -> str:
    """Returns one sentence that says what was learned, and how.

    Args:
        learned: the exported concepts.
        concepts: those to speak of; what was learned before them is said where they are not the first.
        quote: stands around a token; Markdown takes one without for a tag.
    """
    method, count = method_name(learned), len(concepts)
    named = ", ".join(f"{quote}{concept.token}{quote} ({concept.class_word})" for concept in concepts)
    earlier = learned.concepts[: learned.concepts.index(concepts[0])] if not learned.registry.fused_by else ()
    before = ", ".join(f"{quote}{concept.token}{quote}" for concept in earlier)
    how = f"{f' with {method}' if method else ''}{f' on top of {before}' if before else ''}"
    return f"{count} concept{'s' if count > 1 else ''} learned{how}: {named}."


def method_name(learned: Learned) -> str:
    """Returns the run's method as people write it; empty where the run folder does not say."""
    config = RunConfig.find(learned.folder)
    if config is None:
        return ""
    return display_name_of(config.whole["model"]["method"]["class_path"])


def settings_of(learned: Learned) -> list[tuple[str, str]]:
    """Returns the settings that the concepts were learned with, name and value; no place on this machine.

    Empty where the run folder does not say.
    """
    config = RunConfig.find(learned.folder)
    if config is None:
        return []
    named = config.whole["model"]["method"]
    found: list[tuple[str, Any]] = [("method", method_name(learned))]
    data = config.data
    # Where steps a picture are given they decide.
    shown = "steps_per_picture" if data.get("steps_per_picture") else "steps"
    found += [(key, data[key]) for key in (shown, "batch_size") if key in data]
    found += sorted((named.get("init_args") or {}).items())
    found += [("base random seed", config.settings.get("model.seed", 0))]
    own = {each["token"]: each.get(SETTINGS) or {} for each in config.concepts}
    for concept in learned.concepts:
        found += [(f"`{concept.token}`: {name}", value) for name, value in own.get(concept.token, {}).items()]
        if (kept := learned.registry.record(concept.token).kept_step) is not None:
            found.append((f"`{concept.token}`: kept after step", kept))
    return [(name, _without_place(value)) for name, value in found if value is not None]


def _without_place(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_without_place(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_without_place, value))
    return re.split(r"[/\\]", value)[-1] if isinstance(value, str) else str(value)
