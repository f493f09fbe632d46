"""The prompts a concept is trained and scored with."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from string import Formatter
from typing import TYPE_CHECKING

from cns_lightning.errors import Problems

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cns_lightning.sequences.sequence import Concept, Sequence


@dataclass(frozen=True)
class PromptTemplates:
    """Prompt templates by kind of concept; ``{token}``, ``{class_word}`` and ``{prefix}`` are filled in.

    Source: Custom Diffusion (arXiv 2212.04488); docs/methods.md 1.4.
    """

    animal: str = "{prefix}photo of a {token} {class_word}"
    object: str = "{prefix}photo of a {token} {class_word}"
    scene: str = "{prefix}photo of {token} {class_word}"
    style: str = "{prefix}painting in the style of {token} {class_word}"


DEFAULT_TEMPLATES = PromptTemplates()
PLACEHOLDERS = ("token", "class_word", "prefix")
_ARTICLE = re.compile(r"^an? ", re.IGNORECASE)


def check_templates(templates: PromptTemplates) -> None:
    """Refuses templates that cannot be filled in, or in which the token is missing.

    Raises:
        UserError: naming every one of them.
    """
    problems = Problems()
    for kind, template in asdict(templates).items():
        where = f"data.templates.{kind}"
        try:
            named = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        except ValueError as error:
            problems.add(where, f"is {template!r} ({error})", "Close every brace")
            continue
        if unknown := [name for name in named if name not in PLACEHOLDERS]:
            names = ", ".join(f"{{{name}}}" for name in unknown)
            problems.add(where, f"names {names}", f"Use {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}")
        elif "token" not in named:
            problems.add(where, f"is {template!r}, without the token", "Write {token} where the concept stands")
    problems.raise_if_any()


def training_prompt(
    concept: Concept,
    templates: PromptTemplates = DEFAULT_TEMPLATES,
    prefix: str = "",
    caption: str | None = None,
    names_class_word: bool = True,
) -> str:
    """Returns the prompt of one training picture.

    Args:
        concept: what is shown.
        templates: by kind.
        prefix: what an augmentation did, such as ``a far away ``.
        caption: the picture's own; it stands in place of the template or the concept's prompt, and gets the token
            before the class word if it does not name it.
        names_class_word: False leaves the class word behind the token out, for methods that name the token alone.
    """
    prompt = _prompt(concept, templates, prefix, caption)
    return prompt if names_class_word else token_alone(prompt, [concept])


def token_alone(prompt: str, concepts: Iterable[Concept]) -> str:
    """Returns a prompt with tokens in place of tokens and class words: ``a <new1> cat`` becomes ``a <new1>``.

    So does the plural. A style keeps its word: ``in <new2> style`` names no thing of that class.
    """
    for concept in concepts:
        if concept.kind != "style":
            named = rf"{re.escape(concept.token)} {re.escape(concept.class_word)}(?:e?s)?(?!\w)"
            prompt = re.sub(named, concept.token, prompt, flags=re.IGNORECASE)
    return prompt


def _prompt(concept: Concept, templates: PromptTemplates, prefix: str, caption: str | None) -> str:
    words = f"{concept.token} {concept.class_word}"
    if caption is None and concept.settings.prompt:
        # As the templates have it: "a far away photo of", "zoomed in photo of".
        return prefix + (_ARTICLE.sub("", concept.settings.prompt) if prefix else concept.settings.prompt)
    if caption is None:
        template: str = getattr(templates, concept.kind)
        return _of_style(template.format(token=concept.token, class_word=concept.class_word, prefix=prefix))
    if concept.token in caption:
        return prefix + caption
    # In front where the class word is missing: behind a long caption it would not be read any more.
    pattern = rf"\b{re.escape(concept.class_word)}\b"
    named, found = re.subn(pattern, lambda _: words, caption, count=1, flags=re.IGNORECASE)
    return prefix + (named if found else f"{words}, {caption}")


def _of_style(prompt: str) -> str:
    """Says "in a style" where a template says "in the style of" and the class word is style, as it often is."""
    prompt = re.sub(r"\bthe style of style\b", "a style", prompt)
    return re.sub(r"\bthe style of (<[^<>\s]+> style)\b", r"\1", prompt)


def class_training_prompt(concept: Concept, templates: PromptTemplates = DEFAULT_TEMPLATES) -> str:
    """Returns the training prompt of a concept's class: the concept's own without its token."""
    if own := concept.settings.prompt:
        words = f"{concept.token} {concept.class_word}"
        named = re.sub(rf"{re.escape(words)}(?!\w)", lambda _: concept.class_word, own, flags=re.IGNORECASE)
        return _of_style(named.replace(concept.token, concept.class_word))
    template: str = getattr(templates, concept.kind)
    stand_in = "" if "class_word" in template else concept.class_word
    return _of_style(" ".join(template.format(token=stand_in, class_word=concept.class_word, prefix="").split()))


def scoring_prompts(
    concept: Concept, templates: PromptTemplates = DEFAULT_TEMPLATES, names_class_word: bool = True
) -> list[str]:
    """Returns the prompts that stand for a concept: whose text states score its neurons, say."""
    return [training_prompt(concept, templates, names_class_word=names_class_word)]


def class_prompt(prompt: str, sequence: Sequence) -> str:
    """Replaces every token and class word of a prompt by the class word alone, for scoring and for the base model."""
    for concept in sequence.concepts:
        with_class = f"{concept.token} {concept.class_word}"
        prompt = prompt.replace(with_class, concept.class_word).replace(concept.token, concept.class_word)
    return prompt
