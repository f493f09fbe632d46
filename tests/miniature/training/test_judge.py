import random
from itertools import pairwise

import torch
from torch.nn import functional

from cns_lightning.miniature.training.judge import LABELS, contrast, naming, with_a_wrong_word
from cns_lightning.miniature.world.vocabulary import FREE_COLOURS, KINDS, SCENES


def test_a_wrong_caption_differs_in_one_name_and_its_article() -> None:
    caption = "a photo of an orange cat next to a red boat on the beach"
    for seed in range(50):
        wrong = with_a_wrong_word(caption, random.Random(seed))
        pairs = [(a, b) for a, b in zip(caption.split(), wrong.split(), strict=True) if a != b and a not in ("a", "an")]
        assert len(pairs) == 1
        names = next(each for each in (KINDS, tuple(FREE_COLOURS), SCENES) if pairs[0][0] in each)
        assert pairs[0][1] in names
        words = wrong.split()
        for article, noun in pairwise(words):
            assert article not in ("a", "an") or (article == "an") == (noun[0] in "aeiou")


def test_contrast_is_the_symmetric_cross_entropy_and_counts_equal_texts_as_right() -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    texts = ["a", "b", "c", "d", "e", "f"]
    own = torch.arange(3)
    plain = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits[:, :3].T, own)) / 2
    torch.testing.assert_close(contrast(logits, texts), plain)

    swapped = logits[:, [1, 0, 2, 3, 4, 5]]
    twins = ["a", "a", "c", "d", "e", "f"]
    torch.testing.assert_close(contrast(logits, twins), contrast(swapped, twins))


def test_naming_is_lowest_for_the_right_names() -> None:
    labels = torch.stack([torch.tensor([[1, 0], [2, 0], [3, 0]])])  # one picture, three questions, two patches
    right = torch.cat([functional.one_hot(labels[:, i], size) for i, size in enumerate(LABELS)], -1).float() * 20
    assert naming(right, labels) < 1e-3
    assert naming(-right, labels) > 10
