"""Masks: what is read, what is refused, where they go, and how much a cell counts in the end."""

from pathlib import Path

import numpy
import pytest
import torch
import yaml
from PIL import Image

from cns_lightning.cli.main import main
from cns_lightning.data.augmentation import Augmentation, Augmented, augment
from cns_lightning.data.masks import Masks, balanced_weights, latent_weights
from cns_lightning.data.module import ConceptDataModule, StageDataset
from cns_lightning.data.stage_latents import RunContext, StageLatents
from cns_lightning.errors import UserError
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import left_out, masks_beside, picture_files
from tests.runs.learning import arguments, write_sequence

SIZE = (40, 24)
HALF = numpy.repeat([[0] * 20 + [255] * 20], 24, 0).astype(numpy.uint8)
"""Black on the left, white on the right."""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Returns a picture of noise."""
    pixels = numpy.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=numpy.uint8)
    path = tmp_path / "momo.png"
    Image.fromarray(pixels).save(path)
    return path


def grey(values: object, name: str, folder: Path, mode: str = "L") -> Path:
    path = folder / name
    Image.fromarray(numpy.asarray(values, dtype=numpy.uint8)).convert(mode).save(path)
    return path


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["momo.mask.png", "momo-masklabel.png", "momo.Mask.PNG"])
@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P"])
def test_a_mask_lies_beside_its_picture_and_is_none_itself(photo: Path, name: str, mode: str) -> None:
    assert Masks().of(photo, SIZE) is None
    mask = grey(HALF, name, photo.parent, mode)
    read = Masks().of(photo, SIZE)
    assert read is not None
    assert numpy.array_equal(numpy.asarray(read), HALF)
    assert masks_beside(photo) == [mask]
    assert picture_files(photo.parent) == [photo]
    assert left_out(photo.parent) == ""
    assert Masks(outside=1.0).of(photo, SIZE) is None


def test_a_mask_without_its_picture_is_named(photo: Path) -> None:
    grey(HALF, "other.mask.png", photo.parent)
    assert left_out(photo.parent) == "other.mask.png (a mask without its picture)"
    assert picture_files(photo.parent) == [photo]


def test_a_mask_may_be_smaller_or_larger(photo: Path) -> None:
    for factor in (2, 0.5):
        large = Image.fromarray(HALF).resize((round(40 * factor), round(24 * factor)), Image.Resampling.NEAREST)
        large.save(photo.with_name("momo.mask.png"))
        read = Masks().of(photo, SIZE)
        assert read is not None
        assert read.size == SIZE
        assert numpy.abs(numpy.asarray(read, int) - HALF)[:, [*range(18), *range(22, 40)]].max() == 0


def test_what_is_transparent_in_a_mask_is_left_out(photo: Path) -> None:
    layer = Image.new("RGBA", SIZE, "white")
    layer.putalpha(Image.fromarray(HALF))
    layer.save(photo.with_name("momo.mask.png"))
    assert numpy.array_equal(numpy.asarray(Masks().of(photo, SIZE)), HALF)


def test_the_alpha_channel_is_a_mask_where_it_says_anything(photo: Path) -> None:
    layer = Image.open(photo).convert("RGBA")
    layer.putalpha(255)
    layer.save(photo)
    assert Masks().of(photo, SIZE) is None
    assert not Masks().takes_alpha_of(photo)
    layer.putalpha(Image.fromarray(HALF))
    layer.save(photo)
    assert numpy.array_equal(numpy.asarray(Masks().of(photo, SIZE)), HALF)
    assert Masks().takes_alpha_of(photo)
    assert Masks(alpha=False).of(photo, SIZE) is None
    # A file beside the picture is what somebody made for this.
    grey(255 - HALF, "momo.mask.png", photo.parent)
    assert numpy.array_equal(numpy.asarray(Masks().of(photo, SIZE)), 255 - HALF)
    assert not Masks().takes_alpha_of(photo)


def test_alpha_is_turned_as_the_picture_is(photo: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    layer = Image.open(photo).convert("RGBA")
    layer.putalpha(Image.fromarray(HALF))
    layer.save(photo, exif=exif)
    assert numpy.array_equal(numpy.asarray(Masks().of(photo, (24, 40))), numpy.rot90(HALF, -1))


def _refused(photo: Path) -> str:
    with pytest.raises(UserError) as refused:
        Masks().of(photo, SIZE)
    return str(refused.value)


def test_masks_that_cannot_be_used_are_refused(photo: Path) -> None:
    mask = grey(HALF[:, :30], "momo.mask.png", photo.parent)
    assert "momo.mask.png: is 30x24 pixels, and momo.png is 40x24. Give the mask the shape" in _refused(photo)
    grey(numpy.rot90(HALF), mask.name, photo.parent)
    assert "is 24x40 pixels, and momo.png is 40x24. Turn the mask as the picture is shown" in _refused(photo)
    for darkness in (numpy.zeros_like(HALF), HALF // 255):  # a program's zeros and ones
        grey(darkness, mask.name, photo.parent)
        assert "is black all over, so that nothing of momo.png would be learned. Paint white" in _refused(photo)
    mask.write_text("no picture")
    assert "momo.mask.png: is not a picture" in _refused(photo)
    grey(HALF, mask.name, photo.parent)
    grey(HALF, "momo-masklabel.png", photo.parent)
    assert "momo-masklabel.png: is a mask of momo.png, and so is momo.mask.png. Keep one" in _refused(photo)


def test_a_picture_of_nothing_is_refused(photo: Path) -> None:
    Image.new("RGBA", SIZE, (255, 0, 0, 0)).save(photo)
    assert "momo.png: is transparent all over" in _refused(photo)
    assert Masks(alpha=False).of(photo, SIZE) is None


# ---- where it goes, and what it counts ------------------------------------------------------------------------------


def test_a_mask_goes_where_its_picture_goes() -> None:
    # A picture of the mask itself; a slope, which every way of enlarging keeps.
    across, down = numpy.meshgrid(numpy.linspace(20, 200, 160), numpy.linspace(0, 55, 96))
    mask = Image.fromarray((across + down).astype(numpy.uint8))
    seen = set()
    for number in range(30):
        plain = augment(mask.convert("RGB"), 64, Augmentation(), 0, "a", number)
        result = augment(mask.convert("RGB"), 64, Augmentation(), 0, "a", number, mask=mask)
        assert torch.equal(result.pixels, plain.pixels)
        assert plain.mask is None
        assert result.mask is not None
        inner = -torch.nn.functional.max_pool2d(-result.valid, 5, 1, 2) > 0
        inner[:, :2] = inner[:, -2:] = inner[:, :, :2] = inner[:, :, -2:] = False
        assert ((result.pixels[:1] + 1) / 2 - result.mask)[inner].abs().max() < 3 / 255
        assert not result.mask[result.valid == 0].any()
        seen.add(bool(result.valid.all()))
    assert seen == {True, False}


def variant(mask: torch.Tensor | None) -> Augmented:
    return Augmented(torch.zeros(3, 8, 8), torch.ones(1, 8, 8), "", mask)


def test_cells_count_by_the_mean_of_their_pixels() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :4, :4] = 1
    mask[:, 4:, :4] = 0.5
    mask[:, :2, 4:] = 1  # half of a cell
    expected = torch.tensor([[[1.0, 0.1 + 0.9 / 2], [0.1 + 0.9 / 2, 0.1]]])
    assert torch.allclose(latent_weights(variant(mask), 4, 0.1), expected)
    assert torch.equal(latent_weights(variant(mask), 4, 0.0), torch.tensor([[[1, 0.5], [0.5, 0]]]))
    for white in (None, torch.ones(1, 8, 8)):
        assert torch.equal(latent_weights(variant(white), 4, 0.1), torch.ones(1, 2, 2))


def test_weights_of_a_stage_are_one_in_the_mean_of_what_is_valid() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(3, 4, 1, 8, 8, generator=generator)
    valid = (torch.rand(3, 4, 1, 8, 8, generator=generator) > 0.3).float()
    balanced = balanced_weights(weights, valid)
    assert ((balanced * valid).sum() / valid.sum()).item() == pytest.approx(1, abs=1e-5)
    ratio = balanced / weights
    assert torch.allclose(ratio, ratio.mean())
    assert torch.equal(balanced_weights(valid, valid), valid)
    assert torch.equal(balanced_weights(0 * weights, valid), 0 * weights)


def prepared(sequence: Path, masks: Masks = Masks()) -> tuple[ConceptDataModule, StageLatents]:  # noqa: B008 - frozen
    """Returns a data module whose autoencoder is a mean over cells, and what the first stage is trained on."""
    data = ConceptDataModule(str(sequence), batch_size=2, steps=3, masks=masks)
    data.connect(
        RunContext(
            encode=lambda pixels: torch.nn.functional.avg_pool2d(pixels, 4),
            resolution=32, latent_scale=4, timesteps=1000, names_class_word=True, class_latents=None,
            position=lambda: (0, 0), next_stage=lambda: 0,
        )
    )  # fmt: skip
    data.prepare(0)
    return data, data.prepared[0]


def test_a_stage_has_weights_where_a_picture_has_a_mask(tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path, ["cat"])
    data, plain = prepared(sequence)
    assert plain.weights is None
    assert "weights" not in StageDataset(data)[0, 0, 0]
    before = data.picture_checksum(0)
    whole = Image.new("L", (40, 32), 255)
    whole.save(tmp_path / "cat0" / "0.mask.png")
    data, white = prepared(sequence)
    assert data.picture_checksum(0) != before
    assert white.weights is not None
    assert (white.weights[plain.valid > 0] == 1).all()
    for name in ("latents", "valid"):
        assert torch.equal(getattr(white, name), getattr(plain, name))
    whole.paste(0, (0, 0, 20, 32))
    whole.save(tmp_path / "cat0" / "0.mask.png")
    data, half = prepared(sequence, Masks(outside=0.0))
    assert half.weights is not None
    assert torch.equal(half.latents, plain.latents)
    assert "weights" in StageDataset(data)[0, 0, 0]
    # The other two pictures have none, and count alike everywhere.
    assert len(half.weights[1:].unique()) == 1
    assert (half.weights[0] == 0).any()
    assert torch.equal(half.weights[0].amax(), half.weights[1, 0, 0, 0, 0])
    (said,) = data.check_pictures()
    assert "cat0: 1 of 3 pictures have a mask" in said
    assert "counts 0 (data.masks)" in said


def test_alpha_weights_or_is_as_it_was(tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path, ["cat"])
    opaque, _ = prepared(sequence)
    picture = tmp_path / "cat0" / "0.png"
    layer = Image.open(picture).convert("RGBA")
    layer.putalpha(Image.fromarray(numpy.repeat([[0] * 16 + [255] * 16], 40, 0).astype(numpy.uint8)))
    layer.save(picture, exif=Image.open(picture).getexif())
    weighted, unweighted = prepared(sequence), prepared(sequence, Masks(alpha=False))
    assert weighted[1].weights is not None
    assert unweighted[1].weights is None
    assert torch.equal(weighted[1].latents, unweighted[1].latents)
    # A stage that began with a version that knew no masks is told from one whose alpha weights the loss.
    sums = {data.picture_checksum(0) for data in (opaque, weighted[0], unweighted[0])}
    assert len(sums) == 3


def learned(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "registry").iterdir())}


def test_white_masks_learn_the_bits_of_no_masks_and_others_other_bits(tiny_base_model: Path, tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path / "photos", ["cat"])
    assert main(arguments(tiny_base_model, sequence, tmp_path / "plain")) == 0
    whole = Image.new("L", (40, 32), 255)
    for number in range(3):
        whole.save(tmp_path / "photos" / "cat0" / f"{number}.mask.png")
    assert main(arguments(tiny_base_model, sequence, tmp_path / "white")) == 0
    assert learned(tmp_path / "white") == learned(tmp_path / "plain")
    assert (tmp_path / "white" / "metrics.csv").read_bytes() == (tmp_path / "plain" / "metrics.csv").read_bytes()
    whole.paste(0, (0, 0, 20, 32))
    for number in range(3):
        whole.save(tmp_path / "photos" / "cat0" / f"{number}.mask.png")
    assert main(arguments(tiny_base_model, sequence, tmp_path / "half")) == 0
    assert main(arguments(tiny_base_model, sequence, tmp_path / "off", "--data.masks.outside", "1")) == 0
    assert learned(tmp_path / "half") != learned(tmp_path / "plain")
    assert learned(tmp_path / "off") == learned(tmp_path / "plain")


def test_runs_that_knew_no_masks_go_on(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat"]), tmp_path / "run"
    command = arguments(tiny_base_model, sequence, run, steps=1)
    assert main(command) == 0
    path = RunFolder(run).config
    content = yaml.safe_load(path.read_text("utf-8"))
    content["settings"] = {key: value for key, value in content["settings"].items() if "masks" not in key}
    del content["whole"]["data"]["masks"]
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    assert main(command) == 0
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    # What they did, and what is the default; nothing else.
    assert main([*command, "--data.masks.alpha", "false"]) == 0
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    assert main([*command, "--data.masks.outside", "0"]) == 2
    assert "data.masks.outside was 'not set' and is 0" in capsys.readouterr().err
    assert RunConfig.read(RunFolder(run)).concepts[0]["token"] == "<new1>"


def test_a_mask_that_cannot_be_used_stops_a_fit_before_it_starts(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence, run = write_sequence(tmp_path / "photos", ["cat"]), tmp_path / "run"
    Image.new("L", (40, 32)).save(tmp_path / "photos" / "cat0" / "0.mask.png")
    Image.new("L", (40, 40), 255).save(tmp_path / "photos" / "cat0" / "1-masklabel.png")
    assert main(arguments(tiny_base_model, sequence, run)) == 2
    said = capsys.readouterr().err
    assert "0.mask.png: is black all over" in said
    assert "1-masklabel.png: is 40x40 pixels, and 1.jpg is 40x32" in said
    assert not run.exists()
