"""Measures which rare words the miniature minds, and whether their ranking foresees it; writes a section of a document.

Beside each word stand its disturbance, by which `model.rare_words: auto` ranks words, the change of the text states at
the other words, which needs no UNet, and CLIP-T of pictures of two things with the word before both.

``python -m benchmarks.rare_words --out docs/comparison.md`` (about three minutes on two cores)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.scoring import GUIDANCE, Judge, check_section, write_section
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.rare_words import disturbances, rare_word_candidates
from cns_lightning.diffusion.sampling import generate
from cns_lightning.diffusion.text import text_states, token_ids

# None of those by which words are ranked.
PAIRS = (("rabbit", "lamp"), ("cat", "tower"), ("fish", "star"), ("bird", "flower"), ("dog", "box"), ("cat", "ball"))


def texts(word: str = "") -> list[str]:
    """Lists the prompts of two things, with a word before both."""
    before = f"{word} " if word else ""
    return [f"a photo of a {before}{first} next to a {before}{second}" for first, second in PAIRS]


def clip_t(base: BaseModel, judge: Judge, word: str) -> float:
    """Computes CLIP-T of pictures drawn with a word before both things, compared with the prompt without it."""
    drawn = judge.encoder.images(generate(base.pipeline(), texts(word), judge.seeds, guidance=GUIDANCE, batch_size=12))
    wanted = judge.encoder.texts(texts()).repeat_interleave(len(judge.seeds), 0)
    return float((drawn * wanted).sum(-1).mean())


def change_of_states(base: BaseModel, word: str) -> float:
    """Computes the relative change of the text states at all words but the inserted ones, up to the end token."""
    changes = []
    for plain, marked in zip(texts(), texts(word), strict=True):
        inserted = token_ids(base.tokenizers[0], word)[0]
        before, after = (text_states(base, [prompt]) for prompt in (plain, marked))
        kept = after.positions[0] & (after.token_ids[0] != inserted)
        old, new = before.states[0][before.positions[0]], after.states[0][kept]
        changes.append(float((new - old).norm() / old.norm()))
    return sum(changes) / len(changes)


def rank_correlation(one: list[float], other: list[float]) -> float:
    """Computes Spearman's rank correlation."""
    ranks = [torch.tensor(values).argsort().argsort().double() for values in (one, other)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def measure(pictures: int) -> str:
    """Returns the result in Markdown."""
    base, judge = BaseModel.load("miniature"), Judge(pictures)
    found = disturbances(base, rare_word_candidates(base))
    ranked = sorted(found, key=lambda word: found[word])
    states = {word: change_of_states(base, word) for word in ranked}
    aligned = {word: clip_t(base, judge, word) for word in ranked}
    lines = ["| word | disturbance | change of text states | CLIP-T of two things |", "|---|---:|---:|---:|"]
    lines += [f"| (none) | | | {clip_t(base, judge, ''):.3f} |"]
    lines += [f"| {word} | {found[word]:.3f} | {states[word]:.3f} | {aligned[word]:.3f} |" for word in ranked]
    half = len(ranked) // 2
    means = [sum(aligned[word] for word in part) / len(part) for part in (ranked[:half], ranked[half:])]
    other = list(aligned.values())
    lines += [
        "",
        f"Mean CLIP-T of the better ranked half {means[0]:.3f}, of the other {means[1]:.3f}. Rank correlation with "
        f"CLIP-T: disturbance {rank_correlation([found[word] for word in ranked], other):+.2f}, text states "
        f"{rank_correlation(list(states.values()), other):+.2f}.",
    ]
    return "\n".join([*lines, ""])


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4, help="pictures of every prompt")
    parser.add_argument("--out", type=Path, help="document whose section `rare_words` is replaced")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, "rare_words")
    text = measure(arguments.pictures)
    print(text, end="")
    if arguments.out:
        command = " ".join(["python -m benchmarks.rare_words", *sys.argv[1:]])
        write_section(arguments.out, "rare_words", f"`{command}`\n\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
