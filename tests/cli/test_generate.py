"""``generate`` draws, writes whole files, and says what is wrong with a prompt."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from cns_lightning.cli.generate import file_stem, read_strengths, run
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.diffusion.sampling import generate
from cns_lightning.drawing.request import without_brackets
from cns_lightning.errors import UserError
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.pipeline import check_strengths, load_pipeline
from cns_lightning.registry.record import ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.sequences.asked import check_prompts
from tests.diffusion.test_sampling import difference


@pytest.fixture(scope="module")
def folder(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run folder of two concepts that move every key and value weight."""
    path = tmp_path_factory.mktemp("run")
    base = BaseModel.load(str(tiny_base_model))
    weights = {name: each.weight.detach() for name, each in key_value_projections(base.unet).items()}
    mask = NeuronMask.from_bools({name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()})
    registry = NeuronRegistry.create(path / "registry", str(tiny_base_model), base.fingerprint(), weights)
    for number, token in enumerate(("<new1>", "<new2>")):
        generator = torch.Generator().manual_seed(number)
        values = torch.randn(mask.count(), generator=generator).half()
        embedding = torch.randn(1, base.text_width, generator=generator)
        registry.add(ConceptRecord(token, "cat", "animal", f"photo of a {token} cat", mask, values, [embedding]))
    return path


def arguments(folder: Path, *more: str) -> list[str]:
    """Returns a command line that draws quickly."""
    return ["--run", str(folder), "--steps", "2", "--device", "cpu", *more]


def test_one_picture_is_written_as_it_is(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "cat.png"
    prompt = "a photo of <new1> cat"
    assert run(arguments(folder, "--prompt", prompt, "--n", "1", "--seed", "3", "--out", str(out))) == 0
    (expected,) = generate(load_pipeline(folder), [prompt], [3], steps=2)
    assert Image.open(out).tobytes() == expected.tobytes()
    assert list(out.parent.iterdir()) == [out], "nothing half written is left"


def test_several_pictures_are_laid_out_on_one_sheet(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert (
        run(arguments(folder, "--prompt", "a <new1> cat", "--prompt", "a <new2> dog", "--n", "3", "--out", str(out)))
        == 0
    )
    with Image.open(out) as sheet:
        assert sheet.width > 3 * 128
        assert sheet.height > 2 * 128


def test_default_place_is_the_run_folder_and_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments(folder, "--prompt", "a <new1> cat!", "--n", "2", "--upto", "<new1>")) == 0
    path = folder / "generated" / "a-new1-cat-0-upto-new1.png"
    assert path.is_file()
    assert f"wrote {path}" in capsys.readouterr().err


def test_pictures_of_their_own_files(folder: Path, tmp_path: Path) -> None:
    assert run(arguments(folder, "--prompt", "a cat", "--prompt", "a dog", "--n", "2", "--folder", str(tmp_path))) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["00-a-cat-0.png", "00-a-cat-1.png", "01-a-dog-0.png", "01-a-dog-1.png"]
    expected = generate(load_pipeline(folder), ["a dog"], [1], steps=2)[0]
    with Image.open(tmp_path / "01-a-dog-1.png") as picture:
        assert picture.size == expected.size == (32, 32)


def test_upto_draws_with_the_earlier_model(folder: Path, tmp_path: Path) -> None:
    line = arguments(folder, "--prompt", "a <new1> cat", "--n", "1")
    run([*line, "--out", str(tmp_path / "all.png")])
    run([*line, "--out", str(tmp_path / "first.png"), "--upto", "<new1>"])
    (expected,) = generate(load_pipeline(folder, "<new1>"), ["a <new1> cat"], [0], steps=2)
    assert Image.open(tmp_path / "first.png").tobytes() == expected.tobytes()
    assert Image.open(tmp_path / "all.png").tobytes() != expected.tobytes()


def test_a_region_over_everything_draws_its_own_prompt(folder: Path, tmp_path: Path) -> None:
    def drawn(name: str, *more: str) -> Image.Image:
        assert run(arguments(folder, *more, "--n", "1", "--out", str(tmp_path / name))) == 0
        return Image.open(tmp_path / name)

    boxed = drawn("boxed.png", "--prompt", "a red car", "--region", "0,0,1,1:a <new2> cat")
    assert difference(boxed, drawn("own.png", "--prompt", "a <new2> cat")) <= 1
    assert difference(boxed, drawn("other.png", "--prompt", "a red car")) > 1


def test_same_call_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        run(arguments(folder, "--prompt", "a <new2> cat", "--out", str(tmp_path / name), "--n", "2"))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--prompt", "a <nwe2> cat"],
            r"'a <nwe2> cat': names <nwe2>, which was not learned\. Did you mean <new2>\? Learned",
        ),
        (["--prompt", "a <x> and <new1>"], r"names <x>, which was not learned\. Learned are <new1>, <new2>"),
        (
            ["--prompt", "a <new2>", "--upto", "<new1>"],
            r"names <new2>, which was learned after <new1>\. Leave --upto out",
        ),
        (["--prompt", "a cat", "--upto", "<new9>"], r"--upto: no concept <new9> was learned\. Did you mean"),
        (["--prompt", "a cat", "--region", "0,0,1:a cat"], r"--region '0,0,1:a cat': does not start with four numbers"),
        (
            ["--prompt", "a cat", "--region", "0,0,1,1:a <nwe2>"],
            r"--region '0,0,1,1:a <nwe2>': names <nwe2>, which",
        ),
        (["--prompt", "a cat", "--out", "cat.jpg"], r"--out: cat\.jpg does not end in \.png"),
        (["--prompt", "a cat", "--device", "warp"], r"--device: warp cannot be used here"),
    ],
)
def test_mistakes_are_said_in_one_sentence(folder: Path, more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(arguments(folder, *more))


def test_all_unknown_tokens_are_named_at_once() -> None:
    with pytest.raises(UserError) as caught:
        check_prompts([("--prompt 1", "a <a1> and <b1>"), ("--region 2", "<b1> again")], ["<new1>"], None)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "--prompt 1",
        "--prompt 1",
        "--region 2",
    ]


def test_nothing_learned_yet_is_said() -> None:
    check_prompts([("--prompt", "a cat"), ("--prompt", "1 < 2 > 1")], [], None)
    with pytest.raises(UserError, match="Nothing is learned yet"):
        check_prompts([("--prompt", "a <new1> cat")], [], None)


def test_capital_letters_name_the_same_token() -> None:
    check_prompts([("--prompt", "a <NEW1> cat")], ["<new1>"], "<new1>")


def test_missing_run_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        run(arguments(tmp_path / "none", "--prompt", "a cat"))


def test_unwritable_place_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"):
        run(arguments(folder, "--prompt", "a cat", "--n", "1", "--out", str(tmp_path / "file" / "cat.png")))


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_number_of_pictures_is_checked(folder: Path, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(arguments(folder, "--prompt", "a cat", "--n", count))
    assert stopped.value.code == 2
    assert "is not a whole number of at least 1" in capsys.readouterr().err


def test_file_names_are_plain() -> None:
    assert file_stem("a photo of <new1> cat, on the beach!") == "a-photo-of-new1-cat-on-the-beach"
    assert file_stem("../..") == "picture"
    assert len(file_stem("cat " * 100)) <= 60


def test_names_that_were_made_up_replace_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = arguments(folder, "--prompt", "a <new1> cat in a box", "--n", "1")
    for more in ([], ["--guidance", "2"], []):
        assert run([*draw, *more]) == 0
    names = sorted(path.name for path in (folder / "generated").glob("a-new1-cat-in-a-box*"))
    assert names == ["a-new1-cat-in-a-box-0-2.png", "a-new1-cat-in-a-box-0.png"]


def test_a_named_file_is_replaced_and_that_is_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = arguments(folder, "--prompt", "a <new1> cat", "--n", "1", "--out", str(tmp_path / "cat.png"))
    assert run(draw) == 0
    assert f"wrote {tmp_path / 'cat.png'}" in capsys.readouterr().err
    assert run(draw) == 0
    assert f"replaced {tmp_path / 'cat.png'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "FOLDER.png"], "is a folder"),
        (["--folder", "FILE"], "cannot be written to"),
        (["--seed", "-1"], "must lie between 0 and"),
        (["--seed", str(2**64 - 1), "--n", "2"], "must lie between 0 and"),
        (["--steps", "2000"], "scheduler has 1000 steps"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_drawn(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], message: str
) -> None:
    (tmp_path / "FOLDER.png").mkdir()
    (tmp_path / "FILE").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cns_lightning.diffusion.sampling.generate_pairs", None)
    with pytest.raises(UserError, match=message):
        run(["--run", str(folder), "--device", "cpu", "--prompt", "a <new1> cat", *more])


def test_a_concept_without_its_brackets_is_said(base: BaseModel) -> None:
    tokenizer = base.tokenizers[0]
    (said,) = without_brackets(tokenizer, ["a Momo cat", "a <momo> cat", "a cat"], ["<momo>", "<cat>"])
    assert said == "'a Momo cat' says Momo without brackets, which is not the concept <momo>"


@pytest.mark.parametrize("word", ["-1", "nan", "inf", "high"])
def test_guidance_is_a_number(folder: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(arguments(folder, "--prompt", "a cat", f"--guidance={word}"))
    assert "is not a number of at least 0" in capsys.readouterr().err


def test_strength_scales_what_a_concept_adds_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    registry = NeuronRegistry.load(folder / "registry")
    alone = registry.weights("<new1>")
    for name, weight in registry.weights(strengths={"<new2>": 0.0}).items():
        assert torch.equal(weight, alone[name]), "nothing of it is left, to the bit"
    full, half = registry.weights(), registry.weights(strengths={"<new2>": 0.5})
    for name, weight in registry.weights(strengths={"<new2>": 1.0, "<new1>": 1.0}).items():
        assert torch.equal(weight, full[name])
        torch.testing.assert_close(half[name], (alone[name] + full[name]) / 2, atol=1e-5, rtol=1e-5)
    out = tmp_path / "half.png"
    line = arguments(folder, "--prompt", "a <new1> cat", "--n", "1", "--out", str(out), "--strength", "<new2>=0.5")
    assert run(line) == 0
    (expected,) = generate(load_pipeline(folder, strengths={"<new2>": 0.5}), ["a <new1> cat"], [0], steps=2)
    assert Image.open(out).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["<new1>"], "not a token and a number"),
        (["<new1>=much"], "not a token and a number"),
        (["new1=0.5"], "not a token and a number"),
        (["<new1>=nan"], "not a token and a number"),
        (["<new1>=1", "<new1>=0.5"], "has a strength already"),
    ],
)
def test_wrong_strengths(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_strengths(given)


def test_strengths_without_meaning_are_refused_before_the_model_loads(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = arguments(folder, "--prompt", "a cat", "--out", str(tmp_path / "x.png"))
    monkeypatch.setattr(BaseModel, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(UserError, match="no concept <new3>"):
        run([*line, "--strength", "<new3>=0.5"])
    with pytest.raises(UserError, match="learned after <new1>"):
        run([*line, "--strength", "<new2>=0.5", "--upto", "<new1>"])
    registry = NeuronRegistry.create(tmp_path / "registry", "miniature", "0", fused_by="some.Fusing")
    with pytest.raises(UserError, match="Fusing fuses concepts"):
        check_strengths({"<new1>": 0.5}, registry, None)
