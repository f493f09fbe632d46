"""Boxes listen to their own prompts; everything else stays."""

import copy
from typing import Any

import pytest
import torch

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.regions import Region, feature_size, regional_attention
from cns_lightning.diffusion.sampling import generate
from cns_lightning.errors import UserError
from tests.diffusion.test_sampling import difference

WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_reads_boxes_and_keeps_colons_of_the_prompt() -> None:
    assert Region.read("0,0.25,0.5,1: a cat: big ") == Region((0.0, 0.25, 0.5, 1.0), "a cat: big")
    assert Region.read("0,0,1,1: a cat | a dog") == Region(WHOLE, "a cat", "a dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a cat", "four numbers"),
        ("0,0,1:a cat", "four numbers"),
        ("0,0,1,1", "no prompt"),
        ("0,0,1,1: ", "no prompt"),
        ("0,0,1,1:|a dog", "no prompt"),
        ("0,0,1,1:a cat|", "nothing after the bar"),
        ("0.5,0,0.5,1:a cat", "not a box"),
        ("0,0,2,1:a cat", "not a box"),
        ("nan,0,1,1:a cat", "not a box"),
    ],
)
def test_wrong_boxes(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Region.read(text)


def test_cells_lie_wholly_in_the_box() -> None:
    assert Region((0.1, 0.3, 0.5, 1.0), "").cells(10, 4) == (slice(3, 10), slice(1, 2))
    assert feature_size((12, 9), 6 * 5) == (6, 5)
    with pytest.raises(ValueError, match="no feature map"):
        feature_size((8, 8), 10)


def test_a_box_over_everything_is_its_prompt(base: BaseModel) -> None:
    pipe = base.pipeline()
    boxed = generate(pipe, ["a red car at night"], [3], steps=2, regions=[Region(WHOLE, "a cat")])
    plain = generate(pipe, ["a cat"], [3], steps=2)
    other = generate(pipe, ["a red car at night"], [3], steps=2)
    assert difference(boxed[0], plain[0]) <= 1
    assert difference(boxed[0], other[0]) > 1


def test_of_sdxl_the_pooled_state_stays_that_of_the_whole_prompt(xl_base: BaseModel) -> None:
    pipe: Any = xl_base.pipeline()
    boxed = generate(pipe, ["a red car at night"], [3], steps=2, regions=[Region(WHOLE, "a cat")])
    other = generate(pipe, ["a red car at night"], [3], steps=2)
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    cat, car = (
        dict(zip(names, pipe.encode_prompt(prompt, do_classifier_free_guidance=True), strict=True))
        for prompt in ("a cat", "a red car at night")
    )
    given = {**cat, **{name: car[name] for name in names if "pooled" in name}}
    noise = torch.randn(1, *xl_base.latent_shape, generator=torch.Generator().manual_seed(3))
    pipe.set_progress_bar_config(disable=True)
    size = xl_base.resolution
    expected = pipe(**given, latents=noise, num_inference_steps=2, guidance_scale=7.5, height=size, width=size).images
    assert difference(boxed[0], expected[0]) <= 1
    assert difference(boxed[0], other[0]) > 1


def test_pipeline_is_as_before(base: BaseModel) -> None:
    pipe: Any = base.pipeline()
    before = {name: id(processor) for name, processor in pipe.unet.attn_processors.items()}
    with regional_attention(pipe, [Region(WHOLE, "a cat")], (8, 8), guided=True):
        assert {name: id(processor) for name, processor in pipe.unet.attn_processors.items()} != before
    assert {name: id(processor) for name, processor in pipe.unet.attn_processors.items()} == before
    with (
        pytest.raises(ValueError, match="no feature map"),
        regional_attention(pipe, [Region(WHOLE, "a cat")], (7, 7), guided=False),
    ):
        generate(pipe, ["a cat"], [0], steps=2)  # breaks off in the midst of drawing
    assert {name: id(processor) for name, processor in pipe.unet.attn_processors.items()} == before


def test_attention_in_boxes_equals_a_slow_recomputation(base: BaseModel) -> None:
    """Two overlapping boxes on one layer, place by place, head by head."""
    pipe: Any = base.pipeline()
    module = next(m for n, m in pipe.unet.named_modules() if n.endswith("attn2"))
    plain = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 64, module.to_q.in_features, generator=generator)
    whole = torch.cat(pipe.encode_prompt("a boat", "cpu", 1, True)[1::-1])
    regions = [Region((0.0, 0.0, 0.5, 1.0), "a cat"), Region((0.25, 0.5, 1.0, 1.0), "a red car", "a dog")]
    with torch.no_grad(), regional_attention(pipe, regions, (8, 8), guided=True):
        found = module(hidden, encoder_hidden_states=whole)

    def attended(query: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        keys, values = plain.to_k(states), plain.to_v(states)
        width, parts = keys.shape[-1] // plain.heads, []
        for head in range(plain.heads):
            own = slice(head * width, (head + 1) * width)
            weights = (plain.to_q(query)[own] @ keys[:, own].T / width**0.5).softmax(-1)
            parts.append(weights @ values[:, own])
        return torch.cat(parts)

    with torch.no_grad():
        boxed = [
            torch.cat(pipe.encode_prompt(each.prompt, "cpu", 1, True, negative_prompt=each.negative_prompt)[1::-1])
            for each in regions
        ]
        for sample in range(2):
            for place in range(64):
                row, column = divmod(place, 8)
                covering = [boxed[0]] * (column < 4) + [boxed[1]] * (column >= 2 and row >= 4)
                states = [each[sample] for each in covering] or [whole[sample]]
                mean = torch.stack([attended(hidden[sample, place], each) for each in states]).mean(0)
                torch.testing.assert_close(found[sample, place], plain.to_out[0](mean), atol=1e-5, rtol=1e-4)


def test_keys_and_values_of_boxes_are_computed_once(base: BaseModel) -> None:
    pipe: Any = base.pipeline()
    module = next(m for n, m in pipe.unet.named_modules() if n.endswith("attn2"))
    calls, steps = [], []
    handles = [
        module.to_k.register_forward_hook(lambda *_: calls.append(1)),
        pipe.unet.register_forward_hook(lambda *_: steps.append(1)),
    ]
    try:
        regions = [Region((0.0, 0.0, 0.5, 1.0), "a cat"), Region((0.5, 0.0, 1.0, 1.0), "a car")]
        generate(pipe, ["a boat"], [0, 1, 2], steps=3, batch_size=2, regions=regions)
    finally:
        for handle in handles:
            handle.remove()
    assert len(steps) >= 2 * 3
    assert len(calls) == len(regions) + len(steps), "those of the whole prompt are computed at every step"


def test_a_negative_prompt_acts_in_its_box_and_nowhere_without_guidance(base: BaseModel) -> None:
    pipe: Any = base.pipeline()
    boxes = [Region(WHOLE, "a cat"), Region(WHOLE, "a cat", "a red car at night")]
    plain, negative = (generate(pipe, ["a cat"], [3], steps=2, regions=[box])[0] for box in boxes)
    assert difference(plain, negative) > 1
    everywhere = generate(pipe, ["a cat"], [3], steps=2, negative_prompt=boxes[1].negative_prompt)
    assert difference(everywhere[0], negative) <= 1
    plain, negative = (generate(pipe, ["a cat"], [3], steps=2, guidance=1.0, regions=[box])[0] for box in boxes)
    assert difference(plain, negative) == 0


def test_what_no_picture_shall_show_no_box_shows_that_says_nothing_else(base: BaseModel) -> None:
    pipe: Any = base.pipeline()
    word = "a red car at night"
    of_picture = generate(pipe, ["a dog"], [3], steps=2, regions=[Region(WHOLE, "a cat")], negative_prompt=word)[0]
    of_box = generate(pipe, ["a dog"], [3], steps=2, regions=[Region(WHOLE, "a cat", word)])[0]
    assert difference(of_picture, of_box) <= 1
    own = generate(pipe, ["a dog"], [3], steps=2, regions=[Region(WHOLE, "a cat", "a boat")], negative_prompt=word)[0]
    assert difference(own, of_box) > 1


def test_a_box_without_a_whole_cell_is_refused(base: BaseModel) -> None:
    boxes = [Region((0.02, 0.02, 0.03, 0.5), "a cat"), Region(WHOLE, "a dog")]
    with pytest.raises(UserError, match=r"--region 0.02,0.02,0.03,0.5:a cat: is too small: no cell"):
        generate(base.pipeline(), ["a dog"], [3], steps=2, regions=boxes)
