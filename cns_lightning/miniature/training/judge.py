"""The training stage of the judge: a CLIP model of the same world, learned from renders and captions alone."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cns_lightning.miniature import architecture
from cns_lightning.miniature.training.loop import Schedule, TrainingLoop
from cns_lightning.miniature.training.patch_labels import LABELS, patch_labels
from cns_lightning.miniature.training.picture_pool import pool_pictures
from cns_lightning.miniature.training.stages import Recipe, picture_batch
from cns_lightning.miniature.world import sampling

WORLDS = ("plain", "wide", "free", "base")
LONGEST_CAPTION = 36
"""Tokens of a caption in training; what the few longer ones say at their end is not worth a third of the time."""
JUDGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
JUDGE_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def with_a_wrong_word(caption: str, numbers: random.Random) -> str:
    """Returns the caption with one kind, colour or scene replaced by another."""
    words = caption.split()
    names: tuple[tuple[str, ...], ...] = (tuple(sampling.KINDS), tuple(sampling.COLOURS), tuple(sampling.FREE_COLOURS))
    # Kinds first: they are what is learned last.
    for vocabulary in names if numbers.random() < 0.6 else (*names[1:], tuple(sampling.SCENES)):
        places = [index for index, word in enumerate(words) if word in vocabulary]
        if places:
            place = numbers.choice(places)
            words[place] = numbers.choice([word for word in vocabulary if word != words[place]])
            if place and words[place - 1] in ("a", "an"):  # or the article would give the wrong word away
                words[place - 1] = "an" if words[place][0] in "aeiou" else "a"
            return " ".join(words)
    return caption


class _Pupil(nn.Module):
    """The judge and the layer that names what lies at each patch, thrown away in the end."""

    def __init__(self, judge: Any) -> None:
        super().__init__()
        self.judge = judge
        self.names = nn.Linear(judge.config.vision_config.hidden_size, sum(LABELS))

    def forward(self, tokens: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        output = self.judge(input_ids=tokens, pixel_values=pixels)
        return output.logits_per_image, self.names(output.vision_model_output.last_hidden_state[:, 1:])


def train_judge(recipe: Recipe, tokenizer: Any) -> Any:
    """Trains the judge contrastively on renders and their captions, of one world a step.

    The free world's captions name finer colours, patterns and parts than the base world's, which makes the judge's
    image similarity tell two instances of a class apart; in the plain scene kinds are learned first. From the free
    world in the main the judge knew a quarter of the kinds after 1,400 steps. Each picture also meets a caption that is
    wrong in one word: among many detailed captions the kind is hardly ever what tells two apart, and without them the
    judge learned to see everything else (0.46 of the kinds right after 2,500 steps of 256). Beside it the patches learn
    to name the thing that covers them, sixty-four answers a picture instead of one.
    """
    torch.manual_seed(recipe.seed + 2)
    pools = {kind: recipe.pool(kind) for kind in dict.fromkeys(WORLDS)}
    patches = architecture.PICTURE_SIZE // architecture.JUDGE_PATCH
    labels = {
        kind: patch_labels(pool_pictures(len(pool.captions), kind, recipe.seed), patches)
        for kind, pool in pools.items()
    }
    pupil: Any = _Pupil(architecture.build_judge(tokenizer)).to(recipe.device).train()
    schedule = Schedule(recipe.judge_steps, 1.5e-3, warmup=200, decay_share=0.5, averaging=0.995)
    loop = TrainingLoop("judge", pupil, recipe.work / "judge", schedule)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (JUDGE_MEAN, JUDGE_DEVIATION))

    def loss_at(step: int) -> Tensor:
        kind = WORLDS[step % len(WORLDS)]
        pixels, indices = picture_batch(pools[kind], recipe.judge_batch, recipe, "judge", step)
        captions = [pools[kind].captions[index] for index in indices]
        named = torch.from_numpy(labels[kind][indices]).flatten(2).long()
        pixels = ((pixels + 1) / 2 - mean.to(pixels)) / deviation.to(pixels)
        numbers = random.Random(f"{recipe.seed}/judge/{step}/wrong")
        texts = captions + [with_a_wrong_word(each, numbers) for each in captions]
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=LONGEST_CAPTION, return_tensors="pt").to(
            recipe.device
        )
        with loop.autocast():
            logits, names = pupil(tokens.input_ids, pixels)
        return contrast(logits.float(), texts) + naming(names.float(), named.to(names.device))

    loop.run(loss_at)
    loop.load_averages()
    return pupil.judge.eval()


def contrast(logits: Tensor, texts: list[str]) -> Tensor:
    """Returns the symmetric cross-entropy of pictures and texts.

    Args:
        logits: shape (pictures, texts), the first texts being the pictures' own.
        texts: vectors of the captions; of equal captions every one counts as right.
    """
    pictures = len(logits)
    ids = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    labels = torch.tensor([ids[text] for text in texts], device=logits.device)
    right = (labels[:pictures, None] == labels[None, :]).float()
    back = right[:, :pictures].T
    by_picture = functional.cross_entropy(logits, right / right.sum(1, keepdim=True))
    by_text = functional.cross_entropy(logits[:, :pictures].T, back / back.sum(1, keepdim=True))
    return (by_picture + by_text) / 2


def naming(names: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean cross-entropy of the kind, colour and pattern named at every patch.

    Args:
        names: shape (pictures, patches, all labels).
        labels: shape (pictures, 3, patches).
    """
    losses = [
        functional.cross_entropy(part.transpose(1, 2), labels[:, index])
        for index, part in enumerate(names.split(LABELS, -1))
    ]
    return torch.stack(losses).mean()
