"""A picture depends on its prompt and seed alone; sheets hold every picture."""

from typing import Any

import numpy
import pytest
import torch
from PIL import Image, ImageColor

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.sampling import generate
from cns_lightning.diffusion.sheets import grid

PROMPTS = ["a photo of a cat", "a red car at night", "a boat"]


def difference(first: Image.Image, second: Image.Image) -> int:
    """Returns the largest difference of a colour value, 0 to 255."""
    return int(numpy.abs(numpy.asarray(first).astype(int) - numpy.asarray(second).astype(int)).max())


@pytest.mark.parametrize("kind", ["base", "xl_base"])
def test_pictures_do_not_depend_on_their_batch(kind: str, request: pytest.FixtureRequest) -> None:
    pipe = request.getfixturevalue(kind).pipeline()
    together = generate(pipe, PROMPTS, [5, 9], steps=3, batch_size=4)
    alone = [generate(pipe, [prompt], [seed], steps=3)[0] for prompt in PROMPTS for seed in (5, 9)]
    assert len(together) == 6
    assert all(picture.size == (32, 32) for picture in together)
    assert max(difference(*pair) for pair in zip(together, alone, strict=True)) <= 1
    assert difference(together[0], together[1]) > 10
    assert difference(together[0], together[2]) > 0


def test_large_pictures_are_decoded_one_after_another(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe: Any = base.pipeline()
    together = generate(pipe, PROMPTS, [5], steps=2)
    decoded: list[int] = []
    plain = type(pipe.vae)._decode

    def counting(vae: Any, latents: torch.Tensor, **keywords: Any) -> Any:
        decoded.append(len(latents))
        return plain(vae, latents, **keywords)

    monkeypatch.setattr(type(pipe.vae), "_decode", counting)
    monkeypatch.setattr("cns_lightning.diffusion.sampling.DECODED_TOGETHER", 1)
    alone = generate(pipe, PROMPTS, [5], steps=2)
    assert decoded == [1, 1, 1]
    assert max(difference(*pair) for pair in zip(together, alone, strict=True)) <= 1
    assert not pipe.vae.use_slicing


def test_samplers_that_add_noise_are_reproducible_as_well(base: BaseModel) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    pipe = base.pipeline()
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    together = generate(pipe, PROMPTS, [5], steps=4)
    alone = generate(pipe, PROMPTS[1:2], [5], steps=4)
    assert difference(together[1], alone[0]) <= 1


def test_pictures_equal_a_stock_call_and_leave_the_random_state(base: BaseModel) -> None:
    pipe: Any = base.pipeline()
    before = torch.get_rng_state()
    (picture,) = generate(pipe, PROMPTS[:1], [7], steps=3, guidance=4.0)
    assert torch.equal(torch.get_rng_state(), before)
    pipe.set_progress_bar_config(disable=True)
    stock = pipe(
        PROMPTS[0], num_inference_steps=3, guidance_scale=4.0, generator=torch.Generator().manual_seed(7)
    ).images[0]
    assert difference(picture, stock) <= 1


def test_progress_is_told_and_the_pipelines_own_bar_comes_back(
    base: BaseModel, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = base.pipeline()
    pipe.set_progress_bar_config(desc="mine")
    told: list[tuple[int, int]] = []
    generate(pipe, PROMPTS, [0], steps=2, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]
    assert capsys.readouterr().err == ""
    assert pipe._progress_bar_config == {"desc": "mine"}


def test_nothing_to_draw_gives_nothing(base: BaseModel) -> None:
    assert generate(base.pipeline(), [], [0]) == []


def plain(colour: str, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.new("RGB", size, colour)


def colours(sheet: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in sheet.getcolors(sheet.width * sheet.height) or []}  # type: ignore[misc]


def test_sheet_holds_every_picture_enlarged() -> None:
    names = ["#ff0000", "#00ff00", "#0000ff", "#ffff00", "#00ffff"]
    pictures = [plain(name) for name in names]
    sheet = grid([pictures[:3], pictures[3:]], ["<new1> cat", "untouched"], ["seed 0", "seed 1", "seed 2"])
    found = {colour: count for count, colour in sheet.getcolors(sheet.width * sheet.height) or []}
    assert all(found[ImageColor.getrgb(name)] == 128 * 128 for name in names)


def test_large_pictures_keep_their_size() -> None:
    assert grid([[plain("red", (512, 512))] * 2], [""], []).width < 1024 + 512 // 24 * 4


def test_long_labels_wrap_instead_of_widening_the_sheet() -> None:
    pictures = [[plain("red")]]
    short = grid(pictures, ["a photo of <new1> cat"], ["seed 0"])
    long = grid(pictures, ["a photo of <new1> cat on the beach beside a " + "very" * 40 + " long boat"], ["seed 0"])
    assert long.width <= short.width + 128
    assert long.height > short.height


def test_labels_are_written_and_empty_ones_take_no_room() -> None:
    bare = grid([[plain("red")]], [""], [""])
    labelled = grid([[plain("red")]], ["cat"], ["seed 0"])
    assert colours(bare) == {(255, 0, 0), (255, 255, 255)}
    assert len(colours(labelled)) > 2
    assert labelled.width > bare.width
    assert labelled.height > bare.height


def test_sheet_of_nothing_is_a_picture() -> None:
    assert grid([], [], []).size[0] > 0
