"""What a run folder knows about the run, gathered for its page; what is not there is left out."""

from __future__ import annotations

import base64
import io
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from cns_lightning.data.images import read_photos
from cns_lightning.diffusion.sheets import pictures_of
from cns_lightning.errors import UserError
from cns_lightning.evaluation.questions import BASE_PROMPTS
from cns_lightning.methods.discovery import display_name_of
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.metrics import read_rows
from cns_lightning.storage import read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cns_lightning.registry.registry import NeuronRegistry
    from cns_lightning.runs.folder import RunFolder
    from cns_lightning.sequences.sequence import Concept

PHOTOS = 3
"""Photos of a concept that are shown."""
COLUMNS = 12
"""Stages that are shown at most: the page of a hundred concepts would have five thousand pictures."""
WIDTH = 192
"""Width of the pictures on the page, in pixels; twice what a phone shows."""


@dataclass(frozen=True)
class Strip:
    """One concept from stage to stage.

    Attributes:
        token: its token.
        class_word: its class word.
        kind: its kind.
        photos: the user's pictures, as data URLs; empty where they are gone.
        stages: one picture after each of the shown stages, from one seed; None before it was learned and where none
            was drawn.
    """

    token: str
    class_word: str
    kind: str
    photos: list[str]
    stages: list[str | None]


@dataclass
class RunFacts:
    """All that the page shows.

    Attributes:
        name: name of the sequence.
        method: the method, as people write it.
        base_model: name or place of the base model, and what is folded into it.
        concepts: token and class word, in learning order.
        shown: stages of the strips: all, or of many some, the first and the last among them.
        strips: concepts from stage to stage.
        untouched: prompts that name no concept: what the base model drew, and what was drawn after the last stage.
        growing: tokens with what was drawn of them while they were learned, by the steps taken; of one seed.
        rows: rows of ``metrics.csv``.
        scores: ``scores.json`` of the evaluation, or None.
        monitor: stages of the monitor, or None.
        listing: what was kept of every concept.
        timings: seconds and peak memory by stage.
        settings: settings of the run.
    """

    name: str
    method: str
    base_model: str
    concepts: list[tuple[str, str]]
    shown: list[int]
    strips: list[Strip]
    untouched: list[tuple[str, str, str]]
    growing: list[tuple[str, list[tuple[str, str]]]]
    rows: list[dict[str, str]]
    scores: dict[str, Any] | None
    monitor: list[dict[str, Any]] | None
    listing: list[dict[str, Any]]
    timings: dict[str, Any]
    settings: dict[str, Any]


def data_url(picture: Image.Image, width: int = WIDTH) -> str:
    """Returns a picture as a data URL: small drawn pictures as they are, as PNG; larger ones reduced, as WebP."""
    buffer = io.BytesIO()
    if picture.width <= width:
        picture.save(buffer, "PNG", optimize=True)
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    height = max(1, round(picture.height * width / picture.width))
    picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0).save(buffer, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def shown_stages(count: int) -> list[int]:
    """Returns the stages of the strips, evenly spread, the first and the last among them."""
    if count <= COLUMNS:
        return list(range(count))
    return [round(number * (count - 1) / (COLUMNS - 1)) for number in range(COLUMNS)]


def gather(folder: RunFolder, registry: NeuronRegistry) -> RunFacts:
    """Gathers what a run folder knows.

    Args:
        folder: folder of the run.
        registry: learned concepts.

    Raises:
        UserError: if it holds no run, or files are damaged.
    """
    config = RunConfig.read(folder)
    kind, _ = config.method()
    concepts = list(config.read_sequence().concepts)
    learned = [concept for concept in concepts if concept.token in registry.tokens]
    shown = shown_stages(len(learned))
    sheets = [pictures_of(folder.sample_sheet(stage)) for stage in shown]
    return RunFacts(
        name=config.sequence["name"],
        method=display_name_of(f"{kind.__module__}.{kind.__qualname__}"),
        base_model=registry.source.said,
        concepts=[(concept.token, concept.class_word) for concept in learned],
        shown=shown,
        strips=[_strip(concept, sheets) for concept in learned],
        untouched=_untouched(config, pictures_of(folder.base_sheet), sheets),
        growing=_growing(folder, [concept.token for concept in learned], shown),
        rows=read_rows(folder.metrics),
        scores=_scores(folder, registry.tokens),
        monitor=_monitored(folder, len(registry.tokens)),
        listing=[
            {"token": entry.token, "class_word": entry.class_word, "kind": entry.kind, "bytes": entry.bytes,
             **entry.counts}
            for entry in registry.entries
        ],
        timings=read_json(folder.timings)["stages"] if folder.timings.exists() else {},
        settings=config.settings,
    )  # fmt: skip


def _scores(folder: RunFolder, tokens: Sequence[str]) -> dict[str, Any] | None:
    """Returns the scores of `test` where they are of the concepts that the run has now."""
    path = folder.evaluation / "scores.json"
    scores = read_json(path) if path.exists() else {}
    return scores if scores.get("learned") == list(tokens) else None


def _monitored(folder: RunFolder, count: int) -> list[dict[str, Any]] | None:
    """Returns the monitor's rows where every stage up to now has one."""
    path = folder.evaluation / "monitor.json"
    rows = read_json(path)["stages"] if path.exists() else []
    sizes = [(row["stage"], len(row["clip_i"])) for row in rows]
    return rows if rows and sizes == [(stage, stage + 1) for stage in range(len(rows))] and len(rows) <= count else None


def _strip(concept: Concept, sheets: Sequence[dict[str, list[Image.Image]]]) -> Strip:
    label = f"{concept.token} {concept.class_word}"
    drawn = [sheet[label][0] if sheet.get(label) else None for sheet in sheets]
    try:
        photos = read_photos(concept)[:PHOTOS]
    except UserError:  # moved or taken away since; the page is about what was learned
        photos = []
    return Strip(
        concept.token,
        concept.class_word,
        concept.kind,
        [data_url(ImageOps.fit(photo, (WIDTH, WIDTH))) for photo in photos],
        [None if picture is None else data_url(picture) for picture in drawn],
    )


def _untouched(
    config: RunConfig, base: dict[str, list[Image.Image]], sheets: Sequence[dict[str, list[Image.Image]]]
) -> list[tuple[str, str, str]]:
    """Returns prompts that name no concept, with what the base model drew and what was drawn after the last stage."""
    prompts: Sequence[str] = config.samples.get("base_prompts") or BASE_PROMPTS
    last = sheets[-1].get("untouched", []) if sheets else []
    return [
        (prompt, data_url(base[prompt][0]), data_url(picture))
        for prompt, picture in zip(prompts, last, strict=False)
        if base.get(prompt)
    ]


def _growing(folder: RunFolder, tokens: Sequence[str], shown: Sequence[int]) -> list[tuple[str, list[tuple[str, str]]]]:
    found = []
    for stage in shown:
        rows = pictures_of(folder.step_sheet(stage))
        if rows:
            found.append((tokens[stage], [(label, data_url(row[0])) for label, row in rows.items()]))
    return found


def smoothed(values: Sequence[float], share: float = 0.1) -> list[float]:
    """Returns the exponential moving average, corrected for its start.

    Args:
        values: values in order.
        share: weight of the newest value.
    """
    found, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = (1 - share) * mean + share * value, (1 - share) * weight + share
        found.append(mean / weight)
    return found


def identity_of(facts: RunFacts) -> dict[str, Any]:
    """Returns what the evaluation says of identity, else the monitor after the last stage; empty without either."""
    from_monitor = facts.monitor[-1].get("identity") if facts.monitor else None
    return (facts.scores or {}).get("identity") or from_monitor or {}


def verdict(facts: RunFacts) -> str:
    """Returns the sentence a reader should take away: what was learned, and whether it is still there."""
    names = ", ".join(f"{token} {word}" for token, word in facts.concepts)
    count = len(facts.concepts)
    said = f"{facts.method} learned {count} {'concept' if count == 1 else 'concepts'}: {names}."
    scores = facts.scores or {}
    matrix = scores.get("matrix") or [row["clip_i"] for row in facts.monitor or []]
    if len(matrix) == count > 1 and all(value is not None for row in matrix for value in row):
        then, now = matrix[0][0], matrix[-1][0]
        lost = statistics.fmean(matrix[stage][stage] - matrix[-1][stage] for stage in range(count - 1))
        said += (
            f" The first, {facts.concepts[0][0]}, was drawn with a CLIP-I of {then:.3f} when it was learned and of "
            f"{now:.3f} at the end; on average the earlier concepts lost {lost:.3f}."
        )
    identity = identity_of(facts)
    if identity.get("top1") is not None:
        said += f" {identity['top1']:.0%} of the pictures look most like the concept that was asked for."
    return said
