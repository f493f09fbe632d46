"""Token ids of captions: what is sprinkled into them, and how often."""

from pathlib import Path

import torch

from cns_lightning.miniature import architecture
from cns_lightning.miniature.training.caption_tokens import NOT_SAID, SPRINKLED, CaptionTokens, tokenize
from cns_lightning.miniature.world import sampling

CAPTIONS = ["a red cat in the meadow and a blue car", "on the grass", " ".join(["a dog"] * 11)]


def test_a_word_without_meaning_stands_before_a_noun_and_nothing_else_changes(tmp_path: Path) -> None:
    tokenizer = architecture.build_tokenizer(tmp_path, sorted({*sampling.words(), *architecture.RARE_WORDS}))
    captions = CaptionTokens.of(CAPTIONS, tokenizer, "cpu")
    indices = torch.arange(3).repeat_interleave(2000)
    drawn = captions.sprinkled(indices, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, captions.sprinkled(indices, torch.Generator().manual_seed(0)))
    texts = [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in drawn]
    assert set(drawn[:, -1].tolist()) == {captions.end}
    for part, caption in enumerate(CAPTIONS):
        own = texts[2000 * part : 2000 * (part + 1)]
        changed = {text for text in own if text not in (caption, "")}
        for text in changed:
            words = text.split()
            (place,) = [number for number, word in enumerate(words) if word in architecture.RARE_WORDS]
            # The longest one is at the end of the prompt; what no longer fits is cut, as a tokenizer cuts it.
            assert caption.split()[: len(words) - 1] == words[:place] + words[place + 1 :]
            assert [*words, "dog"][place + 1] in sampling.KINDS
        share = sum(text in changed for text in own) / len(own)
        assert abs(share - (SPRINKLED * (1 - NOT_SAID) if part != 1 else 0)) < 0.03
        assert abs(sum(not text for text in own) / len(own) - NOT_SAID) < 0.03
    assert torch.equal(captions.ids, tokenize(tokenizer, CAPTIONS))
