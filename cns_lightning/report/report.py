"""Writes the page of a run: one file with everything inside, that needs no network and no account."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from cns_lightning.analysis.concepts import capacity, masks_of
from cns_lightning.neurons.overlap import overlap_of
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.report import charts
from cns_lightning.report.facts import COLUMNS, PHOTOS, RunFacts, gather, identity_of, verdict
from cns_lightning.runs.versions import library_versions
from cns_lightning.storage import write_atomically
from cns_lightning.user_files import command_line

if TYPE_CHECKING:
    from pathlib import Path

    from cns_lightning.runs.folder import RunFolder

    Matrix = list[list[float | None]]

PROGRAM = ("python", "-m", "cns_lightning")
HEADINGS = (
    "concept",
    "neurons",
    "kB kept",
    "selection (s)",
    "training (s)",
    "rest of the stage (s)",
    "peak memory (MB)",
)


def write_report(folder: RunFolder) -> Path:
    """Writes ``report.html`` of a run, and returns its path.

    Raises:
        UserError: if the folder holds no run, files are damaged, or it cannot be written to.
    """
    write_atomically(folder.report, page(folder).encode())
    return folder.report


def page(folder: RunFolder) -> str:
    """Returns the page of a run; raises what `gather` raises."""
    registry = NeuronRegistry.load(folder.registry)
    facts = gather(folder, registry)
    matrix, confusion = matrix_of(facts), identity_of(facts).get("confusion") or {}
    tokens = [token for token, _ in facts.concepts]
    # Where everything is moved, nothing was chosen.
    chosen = {token: mask for token, mask in masks_of(registry.records).items() if mask.count() < mask.total()}
    known = [value for row in matrix for value in row if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    seconds = sum(sum(stage["seconds"].values()) for stage in facts.timings.values())
    return rendered(
        "run.html",
        facts=facts,
        verdict=verdict(facts),
        seconds=f"{seconds / 60:.1f} minutes in all" if seconds else "",
        photos=max((len(strip.photos) for strip in facts.strips), default=0) and PHOTOS,
        matrix=matrix,
        scored=bool(known),
        number=number,
        # The monitor may have fewer rows than there are stages.
        score=lambda stage, concept: number(matrix[stage][concept]) if stage < len(matrix) else "",
        shade=lambda value: 0 if value is None else round(5 + 50 * (value - low) / max(high - low, 1e-9)),
        confusion=confusion,
        labels=list(dict.fromkeys(label for shares in confusion.values() for label in shares)),
        charts={
            "losses": charts.losses(facts.rows) if facts.rows else "",
            "fixed_noise": charts.fixed_noise(facts.rows),
            "forgetting": charts.forgetting(matrix, tokens) if len(matrix) > 1 else "",
            "room": charts.room(capacity(chosen)) if chosen else "",
        },
        overlap=overlap_of(chosen) if 2 <= len(chosen) <= COLUMNS else None,
        costs={"headings": HEADINGS, "rows": costs(facts)},
        commands=commands(folder, registry),
        learned_with=learned_with(facts),
        settings=yaml.safe_dump(facts.settings, sort_keys=False, allow_unicode=True),
    )


def number(value: float | None) -> str:
    """Returns a score as pages show it; nothing for none."""
    return "" if value is None else f"{value:.3f}"


def rendered(template: str, **shown: Any) -> str:
    """Returns a page made of a template of this folder, and the versions of what made it."""
    pages = Environment(
        loader=PackageLoader("cns_lightning.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return pages.get_template(template).render(versions=library_versions(), **shown)


def matrix_of(facts: RunFacts) -> Matrix:
    """Returns CLIP-I of concept i after stage t, from the evaluation, else from the monitor; empty without either."""
    matrix = (facts.scores or {}).get("matrix")
    return matrix or [row["clip_i"] for row in facts.monitor or []]


def learned_with(facts: RunFacts) -> str:
    """Returns the versions of Python and the libraries that the stages ran with, a line for each set of them.

    Empty for runs that are older than their record.
    """
    found: dict[str, list[str]] = {}
    for stage in facts.timings.values():
        for said in stage.get("versions", []):
            found.setdefault(said, []).append(stage["concept"])
    return "\n".join(f"{', '.join(tokens)}: {said}" for said, tokens in found.items())


def costs(facts: RunFacts) -> list[list[tuple[str, Any]]]:
    """Returns a row for every concept: what is shown in each column, and the value by which it is sorted."""
    rows = []
    for stage, kept in enumerate(facts.listing):
        timing = facts.timings.get(str(stage), {})
        spent, memory = timing.get("seconds", {}), timing.get("peak_memory_bytes", {})
        peak = memory.get("gpu", memory.get("resident"))
        numbers = [
            (f"{kept['neurons']:,}", kept["neurons"]),
            (f"{kept['bytes'] / 1e3:,.1f}", kept["bytes"]),
            *((f"{value:,.1f}", value) if (value := spent.get(phase)) is not None else ("", "")
              for phase in ("selection", "training", "finish")),
            (f"{peak / 1e6:,.0f}", peak) if peak else ("", ""),
        ]  # fmt: skip
        rows.append([(f"{kept['token']} {kept['class_word']}", kept["token"]), *numbers])
    return rows


def drawing_words(folder: RunFolder, registry: NeuronRegistry) -> list[str]:
    """Returns the words of the command that draws the first concept of a run."""
    prompt = next((entry.prompt for entry in registry.entries), "a photo of a cat")
    return ["generate", "--run", str(folder.path), "--prompt", prompt, "--n", "4"]


def what_next(folder: RunFolder, registry: NeuronRegistry) -> str:
    """Returns what a command says at its end: where the page lies, and how to draw."""
    return f"report: {folder.report}\nnext: {command_line(drawing_words(folder, registry))}"


def commands(folder: RunFolder, registry: NeuronRegistry) -> str:
    """Returns the commands that draw with a run, score it, take it along, write its page, and learn it anew."""
    run = str(folder.path)
    all_words = [
        drawing_words(folder, registry),
        ["ui", "--run", run],
        ["test", "--run", run],
        ["analyze", "--run", run],
        ["export", "--run", run, "--format", "webui", "--out", f"exports/{folder.path.name}"],
        ["report", "--run", run],
        ["fit", "--config", str(folder.config), "--run", f"{run}-again"],
    ]
    return "\n".join(shlex.join([*PROGRAM, *words]) for words in all_words)
