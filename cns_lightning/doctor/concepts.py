"""What can be said of concepts and their words before any model is there."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from cns_lightning.doctor.findings import Finding, Severity
from cns_lightning.errors import Problems, UserError
from cns_lightning.sequences.concept_settings import read_settings
from cns_lightning.sequences.drafts import clashes
from cns_lightning.sequences.sequence import (
    CONCEPT_KEYS,
    KINDS,
    PROMPT_KEYS,
    SETTINGS,
    Concept,
    EvaluationPrompts,
    Sequence,
)
from cns_lightning.user_files import composed, expanded, read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence as Listed
    from pathlib import Path


def readable_sequence(path: Path) -> Sequence:
    """Returns what can be read of a sequence file that `Sequence.read` refuses: the rest is looked at all the same."""
    try:
        content = read_yaml(path, "")
    except UserError:
        content = None
    content = content if isinstance(content, dict) else {}
    listed = content.get("concepts")
    concepts = [_concept(each, path) for each in (listed if isinstance(listed, list) else []) if _is_whole(each)]
    prompts = content.get("prompts")
    prompts = prompts if isinstance(prompts, dict) else {}
    texts = {key: prompts.get(key) for key in PROMPT_KEYS}
    told = {key: tuple(filter(_is_text, each)) for key, each in texts.items() if isinstance(each, list)}
    return Sequence(path.stem, tuple(concepts), EvaluationPrompts(**told), path)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(entry: Any) -> bool:
    is_whole = isinstance(entry, dict) and all(_is_text(entry.get(key)) and entry[key].strip() for key in CONCEPT_KEYS)
    return is_whole and entry["kind"] in KINDS


def _concept(entry: dict[str, str], path: Path) -> Concept:
    images = (path.parent / expanded(entry["images"])).absolute()
    settings = read_settings(Problems(), "", entry.get(SETTINGS) or {}, defaultdict(str))
    token, class_word = composed(entry["token"]), composed(entry["class_word"].strip())
    return Concept(token, class_word, entry["kind"], images, settings=settings)


def word_findings(concepts: Listed[Concept]) -> list[Finding]:
    """Returns concepts whose words do not keep them apart: one class word for several, tokens that hold each other."""
    found = []
    for word in dict.fromkeys(concept.class_word.lower() for concept in concepts):
        tokens = [concept.token for concept in concepts if concept.class_word.lower() == word]
        if len(tokens) > 1:
            problem = f"{len(tokens)} concepts of one class: {word}"
            remedy = "They are easily mistaken for each other; say closer words where they fit (tabby cat, terrier)"
            found.append(Finding(Severity.WARNING, problem, ", ".join(tokens), remedy))
    for first, second in itertools.combinations(concepts, 2):
        if clashes(first.token, second.token) and first.token.lower() != second.token.lower():
            problem = "one token stands in the other for programs that write no brackets"
            remedy = "Choose another for one of them; export would rename it"
            found.append(Finding(Severity.WARNING, problem, f"{first.token}, {second.token}", remedy))
    folders: dict[Path, list[str]] = {}
    for concept in concepts:
        folders.setdefault(concept.images, []).append(concept.token)
    for folder, tokens in folders.items():
        if len(tokens) > 1:
            problem = f"is the folder of {' and of '.join(tokens)}"
            found.append(Finding(Severity.WARNING, problem, str(folder), "Give each a folder of its own"))
    return found
