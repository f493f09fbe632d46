"""How other programs call a learned token, and the files they read it from.

They name a token by the stem of its file. A1111 and Forge look for the ids of the stem anywhere in a prompt, longest
first, so a stem that is an ordinary word would fire for everybody's cat, and one whose ids stand inside another's fires
there, too, where that file is missing. Angle brackets cannot stand in file names on Windows, and CLIP's word splitting
joins the closing one with the comma behind it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cns_lightning.diffusion.text import token_ids
from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor
    from transformers import CLIPTokenizer

    from cns_lightning.export.learned import LearnedConcept

PREFIX = "cns"
MOST_BUNDLED = 12
"""Keys that Forge cannot place before it drops the whole file."""
RESERVED = re.compile("con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)
"""Names that are devices on Windows, whatever ending a file has."""
PROGRAMS = ("token", "A1111, Forge", "ComfyUI", "InvokeAI", "diffusers")


def token_stems(tokens: Sequence[str], tokenizer: CLIPTokenizer) -> dict[str, str]:
    """Returns the file stem of every token: its letters and digits, changed where that would call something else.

    A stem is changed when it is a single word of the vocabulary, a number or a name that Windows keeps for itself, or
    its ids stand within an earlier concept's stem, or that one's within it. Earlier concepts keep theirs when others
    are learned.

    Args:
        tokens: tokens in learning order.
        tokenizer: first tokenizer of the base model.

    Raises:
        UserError: if no stem can be found for a token.
    """
    stems: dict[str, str] = {}
    taken: list[list[int]] = []
    for token in tokens:
        for stem in _candidates(token):
            ids = token_ids(tokenizer, stem)
            is_ordinary = len(ids) < 2 or stem.isdigit() or RESERVED.fullmatch(stem)
            if not is_ordinary and not any(stands_in(ids, other) or stands_in(other, ids) for other in taken):
                stems[token] = stem
                taken.append(ids)
                break
        else:
            remedy = "Export up to an earlier concept with --upto, or learn it under another token"
            raise UserError(f"token {token}", "has no name that other programs would not mistake", remedy)
    return stems


def _candidates(token: str) -> Iterator[str]:
    plain = re.sub(r"[^A-Za-z0-9]", "", token)
    letters = "abcdefghijklmnopqrstuvwxyz"
    if plain:
        yield plain
        yield PREFIX + plain
        # new1 stands within new10, whatever stands before both.
        digits = re.search(r"\d", plain)
        if digits:
            yield f"{plain[: digits.start()]}x{plain[digits.start() :]}"
    yield from (f"{PREFIX}{plain}{letter}" for letter in letters)
    words = re.sub(r"\d", "", plain)
    yield from (f"{PREFIX}{words}{letter}{other}" for letter in letters for other in letters)


def stands_in(ids: Sequence[int], others: Sequence[int]) -> bool:
    """Returns whether the ids of one token follow each other somewhere in those of another."""
    return any(list(others[start : start + len(ids)]) == list(ids) for start in range(len(others) - len(ids) + 1))


def embedding_tensors(concept: LearnedConcept) -> dict[str, Tensor]:
    """Returns a token as other programs read it: ``emb_params``, or ``clip_l`` and ``clip_g`` for two text encoders.

    Returns:
        Tensors of shape (vectors, width), float32.
    """
    names = ("emb_params",) if len(concept.embeddings) == 1 else ("clip_l", "clip_g")
    return {name: rows.float().contiguous() for name, rows in zip(names, concept.embeddings, strict=True)}


def bundle_tensors(concepts: Sequence[LearnedConcept], stems: Mapping[str, str]) -> dict[str, Tensor]:
    """Returns tokens as A1111 (since 1.7.0) reads them from within a weight file.

    Raises:
        UserError: if there are so many that Forge would drop the file.
    """
    found: dict[str, Tensor] = {}
    for concept in concepts:
        for name, rows in embedding_tensors(concept).items():
            inner = "string_to_param.*" if name == "emb_params" else name
            found[f"bundle_emb.{stems[concept.token]}.{inner}"] = rows
    if len(found) > MOST_BUNDLED:
        problem = f"{len(concepts)} tokens take {len(found)} keys, and beyond {MOST_BUNDLED} Forge drops the whole file"
        raise UserError("--bundle", problem, "Leave it out: the files in embeddings/ do the same")
    return found


def spellings(token: str, stem: str) -> tuple[str, str, str, str, str]:
    """Returns how a token is written in each program, in the order of `PROGRAMS`."""
    return token, stem, f"embedding:{stem}", f"<{stem}>", token


def spelling_rows(stems: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Returns the table of how to write each token: a heading, and one row per token."""
    return [PROGRAMS, *(spellings(token, stem) for token, stem in stems.items())]


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows as lines of text with their columns one below the other."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
