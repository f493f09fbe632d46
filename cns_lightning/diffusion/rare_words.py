"""Rare words: where the tokens of concepts start when a method asks for words that mean nothing to the base model.

Custom Diffusion starts its tokens from three rare words of CLIP's vocabulary (arXiv 2212.04488, published code). Which
word matters: some disturb everything around them, others the base model hardly minds. So candidates are taken from the
vocabulary and ranked by how little one of them changes what the UNet predicts.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from cns_lightning.determinism import normal
from cns_lightning.diffusion.denoising import added_conditions
from cns_lightning.diffusion.text import TextStates, text_states, token_ids
from cns_lightning.errors import UserError
from cns_lightning.sequences.calibration import shipped_prompts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from transformers import CLIPTokenizer

    from cns_lightning.diffusion.base_model import BaseModel

KEY = "model.rare_words"
CANDIDATES = 64
"""Words that are ranked: the rarest that qualify."""
KEPT = 32
"""Words that are kept of a ranking; further concepts start between two of them."""
LETTERS = re.compile(r"[a-z]{3,4}")
LEAST_LENGTH = 0.75
"""Of a candidate's vector, as a share of the median over common words: shorter ones were hardly ever trained."""
PROBES = (("cat", "boat"), ("dog", "car"), ("bird", "cup"))
NOISE_LEVELS = (0.8, 0.6)
"""Timesteps at which words are ranked, as shares of the noise schedule: where the layout and the things are decided."""


def rare_word_candidates(base: BaseModel, count: int = CANDIDATES) -> list[str]:
    """Lists the rarest words of the vocabulary that could stand for nothing, rarest first.

    A candidate has three or four letters, is one token of every tokenizer, occurs in none of the calibration prompts
    that ship, and its vector is about as long as those of common words.

    Args:
        base: the model.
        count: largest number of candidates.
    """
    tokenizer = base.tokenizers[0]
    common = sorted({word for prompt in shipped_prompts() for word in re.findall(r"[a-z]+", prompt.lower())})
    table = base.embedding_table(0).weight.detach().float()[: base.vocabulary_sizes[0]].cpu()
    lengths = table.norm(dim=1)
    known = [ids[0] for word in common if len(ids := token_ids(tokenizer, word)) == 1]
    least = LEAST_LENGTH * lengths[known].median() if known else torch.zeros(())
    words = []
    # Byte-pair encoding merges what is frequent first: the higher the id, the rarer the word.
    for entry, identifier in sorted(tokenizer.get_vocab().items(), key=lambda item: -item[1]):
        word = entry.removesuffix("</w>")
        is_word = entry.endswith("</w>") and LETTERS.fullmatch(word) is not None and word not in common
        if is_word and identifier < len(lengths) and lengths[identifier] >= least and _is_one_token(base, word):
            words.append(word)
    return words[:count]


def _is_one_token(base: BaseModel, word: str) -> bool:
    ids = [(tokenizer, token_ids(tokenizer, word)) for tokenizer in base.tokenizers]
    return all(len(each) == 1 and each[0] not in tokenizer.all_special_ids for tokenizer, each in ids)


def rank_rare_words(base: BaseModel, words: Sequence[str]) -> list[str]:
    """Ranks words by how little they disturb the base model, least first; equal ones stay in the order given.

    Args:
        base: the model, with nothing learned; computes on its device.
        words: each one token of the vocabulary.
    """
    found = disturbances(base, words)
    return sorted(words, key=lambda word: found[word])


@torch.no_grad()
def disturbances(base: BaseModel, words: Sequence[str]) -> dict[str, float]:
    """Measures how much words disturb a base model.

    The disturbance of a word is the change of the UNet's prediction when the word is put before both things of "a photo
    of a cat next to a boat", relative to the change that dropping the whole prompt makes.

    Args:
        base: the model, with nothing learned; computes on its device.
        words: each one token of the vocabulary.

    Returns:
        By word, rounded to four digits, so that rounding hardly ever decides a ranking; a run keeps its own.

    Source: our choice; docs/comparison.md, "Rare words".
    """
    plain = _predictions(base, [f"a photo of a {first} next to a {second}" for first, second in PROBES])
    dropped = (plain - _predictions(base, [""] * len(PROBES))).norm()
    found = {}
    for word in words:
        prompts = [f"a photo of a {word} {first} next to a {word} {second}" for first, second in PROBES]
        found[word] = round(float((_predictions(base, prompts) - plain).norm() / dropped), 4)
    return found


def _predictions(base: BaseModel, prompts: list[str]) -> Tensor:
    """Returns what the UNet predicts from fixed noise, shape (levels, prompts, channels, height, width), float32."""
    states: TextStates = text_states(base, prompts)
    noise = normal((len(prompts), *base.latent_shape), 0, "rare_words").to(base.device, base.dtype)
    timesteps = base.noise_scheduler.config["num_train_timesteps"]
    levels = []
    for level in NOISE_LEVELS:
        predicted = base.unet(
            noise,
            torch.full((len(prompts),), int(level * timesteps), device=base.device),
            encoder_hidden_states=states.states.to(base.dtype),
            added_cond_kwargs=added_conditions(base, noise, states),
            return_dict=False,
        )[0]
        levels.append(predicted.float().cpu())
    return torch.stack(levels)


def chosen_rare_words(base: BaseModel, given: Sequence[str] | str) -> tuple[str, ...]:
    """Returns the rare words of a base model, best first.

    Args:
        base: the model, with nothing learned.
        given: words, which are taken as they are, or ``auto`` for the best of the vocabulary.

    Raises:
        UserError: if a given word is not one token or is given twice, or the vocabulary has no candidate.
    """
    if given == "auto":
        words = rank_rare_words(base, rare_word_candidates(base))[:KEPT]
        if not words:
            raise UserError(KEY, f"the vocabulary of {base.source} has no rare words", f"Name some: --{KEY} [ktn, pll]")
        return tuple(words)
    if isinstance(given, str):
        raise UserError(KEY, f"{given!r} is not a list of words", f"Write auto, or a list: --{KEY} [ktn, pll, ucd]")
    words = [word.strip().lower() for word in given]
    if not words:
        raise UserError(KEY, "is an empty list", f"Name words, or let the program choose: --{KEY} auto")
    split = [word for word in words if not _is_one_token(base, word)]
    if split:
        problem = f"has {', '.join(split)}, and {base.source} reads each as another number of tokens than one"
        raise UserError(KEY, problem, f"Choose other words, or let the program choose: --{KEY} auto")
    if len(set(words)) < len(words):
        raise UserError(KEY, "names a word twice (upper and lower case are one)", "Name each word once")
    return tuple(words)


def starts(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields distinct starts without end: every word by itself, then every pair, best words first, then triples."""
    for size in range(1, len(words) + 1):
        places = itertools.combinations(range(len(words)), size)
        yield from (
            tuple(words[place] for place in each) for each in sorted(places, key=lambda each: (sum(each), each))
        )


def assigned_starts(
    tokens: Iterable[str], words: Sequence[str], taken: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Assigns a start to every token: its own where it has one already, else the first that no other token has.

    So a concept keeps its start when others are appended, removed or learned anew.

    Args:
        tokens: tokens of the sequence, in learning order.
        words: rare words, best first.
        taken: starts of the concepts that are learned, by token.

    Raises:
        UserError: if there are more concepts than starts.
    """
    free = (start for start in starts(words) if start not in set(taken.values()))
    assigned = {}
    for token in tokens:
        start = taken.get(token) or next(free, None)
        if start is None:
            raise UserError(KEY, f"{len(words)} words are too few for this sequence", "Name more words")
        assigned[token] = start
    return assigned


def rare_word_embedding(base: BaseModel, words: Sequence[str]) -> list[Tensor]:
    """Returns the vectors of a rare word; of several words the mean, as long as they are on average.

    Returns:
        One vector for each encoder, shape (1, width), float32, on the CPU.
    """
    vectors = []
    for number, tokenizer in enumerate(base.tokenizers):
        table = base.embedding_table(number).weight.detach()
        rows = torch.cat([table[_identifier(tokenizer, word)][None] for word in words]).float().cpu()
        mean = rows.mean(0, keepdim=True)
        vectors.append(mean if len(words) == 1 else mean * (rows.norm(dim=1).mean() / mean.norm()))
    return vectors


def _identifier(tokenizer: CLIPTokenizer, word: str) -> int:
    return cast("list[int]", token_ids(tokenizer, word))[0]
