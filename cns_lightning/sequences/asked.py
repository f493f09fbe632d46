"""Prompts that a user asks to be drawn: whether the tokens in them were learned."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from cns_lightning.errors import Problems, UserError
from cns_lightning.sequences.sequence import TOKEN

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_prompts(asked: Sequence[tuple[str, str]], tokens: Sequence[str], upto: str | None) -> None:
    """Refuses prompts that name what was not learned: the model would read such a token as noise.

    Args:
        asked: pairs of where a prompt stands, and the prompt.
        tokens: learned tokens, in learning order.
        upto: the last concept that counts; None takes all.

    Raises:
        UserError: naming every such token.
    """
    if upto is not None and upto not in tokens:
        raise UserError("--upto", f"no concept {upto} was learned", _known(upto, tokens))
    learned = list(tokens) if upto is None else list(tokens[: tokens.index(upto) + 1])
    # CLIP reads lower case alone.
    lowered = {token.lower() for token in learned}
    problems = Problems()
    for where, prompt in asked:
        for token in dict.fromkeys(TOKEN.findall(prompt)):
            if token.lower() in lowered:
                continue
            if token in tokens:
                problems.add(where, f"names {token}, which was learned after {upto}", "Leave --upto out")
            else:
                problems.add(where, f"names {token}, which was not learned", _known(token, learned))
    problems.raise_if_any()


def _known(token: str, tokens: Sequence[str]) -> str:
    if not tokens:
        return "Nothing is learned yet: run fit first, or write a prompt without tokens"
    near = difflib.get_close_matches(token, tokens, 1)
    guess = f"Did you mean {near[0]}? " if near else ""
    return f"{guess}Learned are {', '.join(tokens)}"
