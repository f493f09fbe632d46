"""Tokens and prompts as the base model's own tokenizers read them; no weights are loaded for it."""

from __future__ import annotations

import textwrap
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import torch

from cns_lightning.data.images import read_captions
from cns_lightning.diffusion.loading import LOADING_FAULTS, first_line
from cns_lightning.diffusion.text import ConceptTokens, prompt_length, token_ids
from cns_lightning.doctor.findings import Finding, Severity, refused
from cns_lightning.errors import UserError
from cns_lightning.export.tokens import stands_in, token_stems
from cns_lightning.sequences.drafts import clashes, stem
from cns_lightning.sequences.sequence import PROMPT_KEYS, captions_beside
from cns_lightning.sequences.templates import training_prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from transformers import CLIPTokenizer

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.doctor.base_parts import BaseParts
    from cns_lightning.sequences.sequence import Concept, EvaluationPrompts
    from cns_lightning.sequences.templates import PromptTemplates

USUAL_TIMESTEPS = 1000
BORDERS = 2
"""Start and end token of a prompt."""
REST = 60
"""Characters that are shown of what is not read."""


class TextSide:
    """Tokenizers and sizes of a base model: what checks of tokens and prompts ask of a `BaseModel`.

    Attributes:
        source: folder, file or name of the base model.
        tokenizers: one a text encoder.
        text_encoders: their configurations.
        vocabulary_sizes: rows of their embedding tables.
        noise_scheduler: its configuration.

    Args:
        parts: base model with a folder.

    Raises:
        UserError: if a tokenizer cannot be opened.
    """

    def __init__(self, parts: BaseParts) -> None:
        self.source = parts.source
        self.tokenizers = [_tokenizer(parts, name.replace("text_encoder", "tokenizer")) for name in parts.encoders]
        configs = [
            {"max_position_embeddings": 77, "vocab_size": 49408} | parts.configs[name] for name in parts.encoders
        ]
        self.text_encoders = [SimpleNamespace(config=SimpleNamespace(**config)) for config in configs]
        self.vocabulary_sizes = [encoder.config.vocab_size for encoder in self.text_encoders]
        self._tables = [torch.nn.Embedding(size, 1) for size in self.vocabulary_sizes]
        timesteps = parts.configs.get("scheduler", {}).get("num_train_timesteps", USUAL_TIMESTEPS)
        self.noise_scheduler = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=timesteps))

    def embedding_table(self, number: int) -> torch.nn.Embedding:
        """Returns a table of one column with one row per word."""
        return self._tables[number]

    @property
    def as_base(self) -> BaseModel:
        """This, for checks of a base model that look at nothing else of it."""
        return cast("BaseModel", self)


def _tokenizer(parts: BaseParts, name: str) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(str(parts.folder), subfolder=name, local_files_only=True)
    except LOADING_FAULTS as error:
        remedy = "Copy or download the base model again"
        raise UserError(
            f"base model {parts.source}: {name}", f"cannot be opened: {first_line(error)}", remedy
        ) from error


def token_findings(base: BaseModel, tokens: Sequence[str]) -> list[Finding]:
    """Adds the tokens to the tokenizers, as a run does; returns those it refuses, and ordinary words.

    Args:
        base: the base model or its `TextSide`; knows the tokens afterwards.
        tokens: tokens of the sequence.
    """
    distinct = list({token.lower(): token for token in tokens}.values())
    # Before they are added: another program's tokenizer does not know them.
    found = [*_other_names(base, distinct)]
    added = ConceptTokens(base)
    for token in distinct:
        found += refused(lambda token=token: added.add(token))
    return found


def _other_names(base: BaseModel, tokens: Sequence[str]) -> Iterable[Finding]:
    try:
        stems = token_stems(tokens, base.tokenizers[0])
    except UserError:  # export will say so
        return
    ids = {token: token_ids(base.tokenizers[0], stem(token)) for token in tokens}
    for token in tokens:
        remedy = f"export calls it {stems[token]} there; the concept must be asked for by that name"
        if len(ids[token]) == 1:
            problem = f"{stem(token)} is a word that the base model knows, and other programs write no brackets"
            yield Finding(Severity.NOTE, problem, token, remedy)
        # Where their letters alone tell, the words are looked at without a model.
        within = [each for each in tokens if each != token and not clashes(each, token)
                  and min(len(ids[each]), len(ids[token])) > 1
                  and (stands_in(ids[each], ids[token]) or stands_in(ids[token], ids[each]))]  # fmt: skip
        if within and stems[token] != stem(token):
            problem = f"the base model reads it and {', '.join(within)} as one within the other, without brackets"
            yield Finding(Severity.WARNING, problem, token, remedy)


def prompt_findings(
    base: BaseModel,
    concepts: Sequence[Concept],
    prompts: EvaluationPrompts,
    templates: PromptTemplates,
    base_prompts: Sequence[str],
    where: str,
    with_captions: bool = True,
) -> list[Finding]:
    """Returns prompts and captions that are longer than the text encoder reads: their ends are cut off.

    Args:
        base: the base model or its `TextSide`, which knows the tokens.
        concepts: concepts whose pictures are there.
        prompts: evaluation prompts.
        templates: prompts by kind of concept.
        base_prompts: prompts of the samples that name no concept.
        where: sequence file.
        with_captions: whether captions are read.
    """
    told = [(f"{where}: prompts.{key}", getattr(prompts, key)) for key in PROMPT_KEYS]
    told += [("samples.base_prompts", base_prompts)]
    for each in concepts:
        place = f"settings.prompt of {each.token}" if each.settings.prompt else f"data.templates.{each.kind}"
        told += [(place, [training_prompt(each, templates)])]
    found = [_cut(base, f"{place}[{number}]", text) for place, texts in told for number, text in enumerate(texts)]
    for concept in concepts:
        for path, caption in _captions(concept).items() if with_captions else ():
            found.append(
                _cut(base, str(captions_beside(path)[0]), training_prompt(concept, templates, caption=caption))
            )
            if concept.token not in caption and concept.class_word.lower() not in caption.lower():
                problem = f"a caption that names neither {concept.token} nor {concept.class_word}"
                remedy = f"{concept.token} {concept.class_word} is put in front of it"
                beside = (captions_beside(path)[0].name,)
                found.append(Finding(Severity.NOTE, problem, str(concept.images), remedy, beside))
    return [finding for finding in found if finding is not None]


def _captions(concept: Concept) -> dict[Path, str]:
    try:
        return read_captions(concept)
    except UserError:  # said with the pictures
        return {}


def _cut(base: BaseModel, where: str, text: str) -> Finding | None:
    """Returns what is cut off the end of a text, by the tokenizer that reads least of it; None for nothing."""
    for number, tokenizer in enumerate(base.tokenizers):
        room = prompt_length(base, number) - BORDERS
        ids = cast("list[int]", tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if len(ids) > room:
            rest = textwrap.shorten(str(tokenizer.decode(ids[room:])), REST, placeholder=" ...")
            problem = f"has {len(ids)} tokens, the text encoder reads {room}"
            return Finding(Severity.WARNING, problem, where, f'Shorten it; not read: "{rest}"')
    return None
