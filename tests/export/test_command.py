"""The command: what it refuses, in one sentence, before anything slow starts, and that it leaves the run alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cns_lightning.cli.export import checked_name
from cns_lightning.cli.export import run as command
from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.errors import UserError
from cns_lightning.registry.record import LAYERS, ConceptRecord
from cns_lightning.registry.registry import NeuronRegistry
from tests.export.runs import concept, export, pretrained_unet, read_into, trained_weights, weights_of
from tests.runs.learning import learn

FORMATS = ("diffusers", "webui", "shira", "lora", "comfyui")


@pytest.fixture
def nothing_slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails as soon as a base model is loaded."""
    monkeypatch.setattr(BaseModel, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    return iter(())


def arguments(run: Path, what: str, out: Path, *more: str) -> list[str]:
    needed = {"lora": ["--rank", "2"], "comfyui": ["--prompt", "a cat"]}
    place = out / "w.json" if what == "comfyui" else out
    return ["export", "--run", str(run), "--format", what, "--out", str(place), *needed.get(what, []), *more]


@pytest.mark.parametrize("what", FORMATS)
def test_a_run_is_left_as_it_is(run: Path, tmp_path: Path, what: str) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(arguments(run, what, tmp_path / "out")) == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("what", FORMATS)
def test_layerwise_tokens_cannot_be_exported(
    base: BaseModel, tmp_path: Path, what: str, nothing_slow: None, capsys: pytest.CaptureFixture[str]
) -> None:
    made = concept(base, "<new1>", 0)
    layered = ConceptRecord(
        made.token, "cat", "animal", made.prompt, made.mask, made.values, [torch.randn(6, base.text_width)],
        metadata={LAYERS: "3"},
    )  # fmt: skip
    registry = NeuronRegistry.create(
        tmp_path / "run" / "registry", base.source, "f00d", fused_by="some.mix_of_show.MixOfShow"
    )
    registry.add(layered)
    assert main(arguments(tmp_path / "run", what, tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "registry/000-new1.safetensors: embeddings: <new1> has vectors of its own for each of 3 layers." in said
    assert "draw with generate, or learn the sequence with a method whose tokens are the same in every layer" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--format", "webui", "--rank", "4"], r"--rank: has no meaning for webui\. Leave it out, or export lora"),
        (["--format", "diffusers", "--per-concept"], r"--per-concept: has no meaning for diffusers"),
        (
            ["--format", "shira", "--bundle"],
            r"--bundle: has no meaning for shira\. Leave it out, or export webui or lora",
        ),
        (["--format", "webui", "--prompt", "a cat"], r"--prompt: has no meaning for webui"),
        (["--format", "comfyui", "--dtype", "float16"], r"--dtype: has no meaning for comfyui"),
        (["--format", "lora"], r"--rank: is missing\. Give one, such as --rank 32"),
        (
            ["--format", "webui", "--upto", "<new9>"],
            r"knows no concept <new9>\. Choose one of what was learned: <new1>",
        ),
        (["--format", "webui", "--name", "my model"], r"--name: is 'my model', and programs take letters"),
    ],
)
def test_mistakes_are_said_in_one_sentence(
    run: Path, tmp_path: Path, nothing_slow: None, more: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        command(["--run", str(run), "--out", str(tmp_path / "out"), *more])
    assert not (tmp_path / "out").exists()


def test_a_place_with_other_files_is_refused_before_anything_slow(
    run: Path, tmp_path: Path, nothing_slow: None
) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UserError, match="is not empty, and is not an earlier export"):
        command(["--run", str(run), "--format", "webui", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_too_many_tokens_for_a_bundle_are_refused_before_anything_slow(
    base: BaseModel, tmp_path: Path, nothing_slow: None
) -> None:
    registry = NeuronRegistry.create(tmp_path / "run" / "registry", base.source, "f00d")
    for number in range(13):
        registry.add(concept(base, f"<n{number}>", number))
    line = ["--run", str(tmp_path / "run"), "--format", "webui", "--out", str(tmp_path / "out"), "--bundle"]
    with pytest.raises(UserError, match="13 tokens take 13 keys"):
        command(line)


def test_nothing_learned_and_no_run_are_said(base: BaseModel, tmp_path: Path, nothing_slow: None) -> None:
    NeuronRegistry.create(tmp_path / "run" / "registry", base.source, "f00d").save()
    with pytest.raises(UserError, match="has learned no concept yet"):
        command(["--run", str(tmp_path / "run"), "--format", "webui", "--out", str(tmp_path / "out")])
    with pytest.raises(UserError, match="there is no such folder"):
        command(["--run", str(tmp_path / "none"), "--format", "webui", "--out", str(tmp_path / "out")])


def test_another_base_model_is_refused(run: Path, tiny_xl_base_model: Path, tmp_path: Path) -> None:
    line = ["--run", str(run), "--format", "webui", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match="is another"):
        command([*line, "--base-model", str(tiny_xl_base_model)])


def test_a_moved_base_model_is_found(run: Path, tiny_base_model: Path, tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(tiny_base_model)
    export(run, "webui", tmp_path / "out", "--base-model", str(tmp_path / "moved"))
    assert "For tiny (" in (tmp_path / "out" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("what", ["shira", "lora"])
def test_tokens_alone_have_no_weights_to_export(base: BaseModel, tmp_path: Path, what: str, nothing_slow: None) -> None:
    registry = NeuronRegistry.create(tmp_path / "run" / "registry", base.source, "f00d")
    registry.add(concept(base, "<new1>", 0, share=0))
    with pytest.raises(UserError, match=f"--format {what}: the run's concepts are tokens alone"):
        command(arguments(tmp_path / "run", what, tmp_path / "out")[1:])


def test_names_of_run_folders_become_names_of_files(tmp_path: Path) -> None:
    assert checked_name(None, tmp_path / "my run (2)") == "my-run-2"
    assert checked_name(None, tmp_path / "猫") == "cns"
    assert checked_name("fam_2-b", tmp_path) == "fam_2-b"


def test_a_learned_run_tells_its_settings_and_fused_weights_are_exported_whole(
    tiny_base_model: Path, tmp_path: Path
) -> None:
    run = learn("custom_diffusion", tiny_base_model, tmp_path, "--seed_everything", "42")
    export(run, "webui", tmp_path / "out", "--dtype", "float32")
    unet = pretrained_unet(run)
    read_into(unet, load_file(tmp_path / "out" / "run.safetensors"))
    expected = trained_weights(run)
    for name, weight in weights_of(unet).items():
        torch.testing.assert_close(weight, expected[name], atol=1e-7, rtol=1e-6)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "2 concepts learned with Custom Diffusion" in card
    assert "| prior_weight | 1.0 |" in card
    assert "| base random seed | 42 |" in card
    assert "samples.jpg" in card
    assert str(tmp_path) not in card
    for what in ("webui", "lora", "comfyui"):
        with pytest.raises(UserError, match=r"--per-concept: CustomDiffusion fuses concepts into one set of weights"):
            command(arguments(run, what, tmp_path / what, "--per-concept")[1:])
