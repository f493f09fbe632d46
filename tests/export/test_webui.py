"""``webui``: what a reader that knows only the keys makes of the files is the model of the run, bit for bit."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.export.learned import LearnedModel, difference
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.registry import NeuronRegistry
from tests.export.runs import export, header, pretrained_unet, read_into, trained_weights, weights_of, write_run


def by_lycoris(unet: nn.Module, tensors: dict[str, Tensor], strength: float) -> None:
    """Merges a weight file by a program of others."""
    lycoris = pytest.importorskip("lycoris", reason="lycoris-lora is not installed")
    named = {key.replace("lora_unet_", "lycoris_"): tensor for key, tensor in tensors.items()}
    network, _ = lycoris.create_lycoris_from_weights(1.0, "", unet, weights_sd=named)
    assert len(network.loras) == len(tensors)
    network.merge_to(strength)


def by_keys(unet: nn.Module, tensors: dict[str, Tensor], strength: float) -> None:
    """Merges a weight file by the rule alone."""
    read_into(unet, tensors, strength)


@pytest.mark.parametrize("merge", [by_keys, by_lycoris])
def test_the_whole_delta_gives_the_model_of_the_run(any_run: Path, tmp_path: Path, merge: object) -> None:
    assert callable(merge)
    export(any_run, "webui", tmp_path / "out", "--dtype", "float32")
    tensors = load_file(tmp_path / "out" / f"{any_run.name}.safetensors")
    expected, before = trained_weights(any_run), weights_of(pretrained_unet(any_run))
    unet = pretrained_unet(any_run)
    merge(unet, tensors, 1.0)
    for name, weight in weights_of(unet).items():
        assert torch.equal(weight, expected[name]), f"{name}: every bit, and nothing else touched"
    unet = pretrained_unet(any_run)
    merge(unet, tensors, 0.5)
    moved = 0
    for name, weight in weights_of(unet).items():
        torch.testing.assert_close(weight, (before[name] + expected[name]) / 2, atol=1e-6, rtol=1e-6)
        moved += not torch.equal(weight, before[name])
    assert moved == len(tensors)


def test_a_file_a_concept_adds_up_and_has_a_strength(any_run: Path, tmp_path: Path) -> None:
    export(any_run, "webui", tmp_path / "out", "--dtype", "float32", "--per-concept", "--name", "fam")
    files = [tmp_path / "out" / f"fam-new{number}.safetensors" for number in (1, 2)]
    assert sorted((tmp_path / "out").glob("*.safetensors")) == files
    for strengths in ({}, {"<new2>": 0.5}, {"<new1>": 0.0}, {"<new1>": 0.25, "<new2>": 2.0}):
        unet = pretrained_unet(any_run)
        for file, token in zip(files, ("<new1>", "<new2>"), strict=True):
            read_into(unet, load_file(file), strengths.get(token, 1.0))
        expected = weights_of(load_pipeline(any_run, strengths=strengths).unet)
        for name, weight in weights_of(unet).items():
            torch.testing.assert_close(weight, expected[name], atol=1e-7, rtol=1e-6)
            assert torch.equal(weight, expected[name]) or strengths


def test_half_precision_is_the_usual_and_rounds_once(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(run, "webui", tmp_path / "out")
    said = capsys.readouterr().out
    tensors = load_file(tmp_path / "out" / "family.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    unet, expected = pretrained_unet(run), trained_weights(run)
    read_into(unet, tensors)
    largest = max(float((weight - expected[name]).abs().max()) for name, weight in weights_of(unet).items())
    assert 0 < largest < 2e-4
    bound = float(said.split("rounds by at most ")[1].split(";")[0])
    assert largest <= bound * 1.1
    # What one concept alone moves is kept in half precision, so nothing is rounded.
    export(run, "webui", tmp_path / "one", "--upto", "<new1>")
    assert "rounds by" not in capsys.readouterr().out
    unet = pretrained_unet(run)
    read_into(unet, load_file(tmp_path / "one" / "family.safetensors"))
    one = trained_weights(run, "<new1>")
    assert all(torch.equal(weight, one[name]) for name, weight in weights_of(unet).items())


def moved_twice() -> tuple[Tensor, list[Tensor], Tensor]:
    """Returns made-up weights, what two concepts add to each of them, and the weights after both."""
    generator = torch.Generator().manual_seed(0)
    old = torch.randn(200_000, generator=generator) / 30
    values = [(torch.randn(200_000, generator=generator) / 300).half().float() for _ in range(2)]
    return old, values, old + values[0] + values[1]


def test_the_difference_added_gives_the_new_weight_where_a_number_does() -> None:
    old, values, new = moved_twice()
    found = difference(new, old, values[0] + values[1])
    off = old + found != new
    assert int(off.sum()) < 0.003 * len(old)
    assert float((old + found - new).abs().max()) < 1e-9
    assert torch.equal(difference(old + values[0], old, values[0]), values[0]), "with its few digits"


def test_weights_that_no_difference_brings_back_are_counted() -> None:
    old, values, new = moved_twice()
    delta = difference(new, old, values[0] + values[1])
    model = cast("LearnedModel", SimpleNamespace(pretrained={"w": old}, trained=lambda: {"w": new}))
    count = LearnedModel.count_inexact(model, {"w": delta})
    # Of no float near the difference is the sum the new weight.
    near = [new - old]
    for end in (-torch.inf, torch.inf):
        each = new - old
        for _ in range(3):
            each = torch.nextafter(each, torch.full_like(each, end))
            near.append(each)
    hopeless = torch.stack([old + each != new for each in near]).all(0)
    assert count > 0
    assert count == int(hopeless.sum())


def test_how_exact_it_is_is_counted_not_claimed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export(run, "webui", tmp_path / "one", "--dtype", "float32")
    assert "at strength 1 every weight is the run's own, bit for bit" in capsys.readouterr().out
    monkeypatch.setattr(LearnedModel, "count_inexact", lambda *_: 1234)
    export(run, "webui", tmp_path / "two", "--dtype", "float32")
    assert "the run's own but for the last bit of 1,234" in capsys.readouterr().out


def test_every_token_is_a_file_that_programs_read(any_run: Path, tmp_path: Path) -> None:
    export(any_run, "webui", tmp_path / "out")
    registry = NeuronRegistry.load(any_run / "registry")
    pipe = BaseModel.load(registry.base_model).pipeline()
    parts = [(pipe.tokenizer, pipe.text_encoder)]
    names = ["emb_params"]
    if hasattr(pipe, "text_encoder_2"):
        parts.append((pipe.tokenizer_2, pipe.text_encoder_2))
        names = ["clip_l", "clip_g"]
    for token in registry.tokens:
        path = tmp_path / "out" / "embeddings" / f"{token[1:-1]}.safetensors"
        found = load_file(path)
        assert list(found) == sorted(names)
        for number, (name, (tokenizer, encoder)) in enumerate(zip(names, parts, strict=True)):
            assert torch.equal(found[name], registry.embedding(token, number))
            source = str(path) if len(names) == 1 else {name: found[name]}
            pipe.load_textual_inversion(source, token=token, tokenizer=tokenizer, text_encoder=encoder)
            row = tokenizer.convert_tokens_to_ids(token)
            assert torch.equal(encoder.get_input_embeddings().weight[row], found[name][0])
        assert header(path)["modelspec.architecture"].endswith("/textual-inversion")


def test_tokens_of_several_vectors_stay_together(tiny_base_model: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "several", tiny_base_model, vectors=3)
    export(run, "webui", tmp_path / "out")
    found = load_file(tmp_path / "out" / "embeddings" / "new1.safetensors")
    assert torch.equal(found["emb_params"], NeuronRegistry.load(run / "registry").embedding("<new1>"))
    assert found["emb_params"].shape[0] == 3


def test_bundled_tokens_are_in_the_weight_file_too(any_run: Path, tmp_path: Path) -> None:
    export(any_run, "webui", tmp_path / "all", "--bundle")
    export(any_run, "webui", tmp_path / "each", "--bundle", "--per-concept")
    registry = NeuronRegistry.load(any_run / "registry")
    names = ["clip_l", "clip_g"] if len(registry.record("<new1>").embeddings) == 2 else ["string_to_param.*"]
    whole = load_file(tmp_path / "all" / f"{any_run.name}.safetensors")
    for stem in ("new1", "new2"):
        own = load_file(tmp_path / "each" / f"{any_run.name}-{stem}.safetensors")
        assert {key for key in own if key.startswith("bundle_emb")} == {f"bundle_emb.{stem}.{name}" for name in names}
        for number, name in enumerate(names):
            key = f"bundle_emb.{stem}.{name}"
            assert torch.equal(whole[key], own[key])
            assert torch.equal(own[key], registry.embedding(f"<{stem}>", number))


def test_the_file_says_what_programs_ask(any_run: Path, tmp_path: Path) -> None:
    export(any_run, "webui", tmp_path / "out", "--name", "fam", "--license", "cc-by-4.0")
    found = header(tmp_path / "out" / "fam.safetensors")
    registry = NeuronRegistry.load(any_run / "registry")
    assert found["cns.base_fingerprint"] == registry.base_fingerprint
    assert found["ss_output_name"] == "fam"
    assert found["modelspec.license"] == "cc-by-4.0"
    assert found["ss_base_model_version"] == ("sdxl_base_v1-0" if "xl" in any_run.name else "sd_v1")
    assert json.loads(found["ss_network_args"]) == {"algo": "full"}
    beside = json.loads((tmp_path / "out" / "fam.json").read_text("utf-8"))
    assert beside["activation text"] == "new1 cat, new2 cat"
    with Image.open(tmp_path / "out" / "fam.png") as preview:
        assert max(preview.size) <= 512


def test_same_export_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        export(run, "webui", tmp_path / name, "--bundle")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) > 5
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_the_user_is_told_how_to_write_it_and_what_is_next(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(run, "webui", tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    table = next(number for number, line in enumerate(lines) if line.startswith("token"))
    assert lines[table + 1].split() == ["<new1>", "new1", "embedding:new1", "<new1>", "<new1>"]
    assert lines[-1].startswith("next: copy ")
    assert 'write "<lora:family:1> photo of a new2 cat"' in lines[-1]
    assert "12 wide, for which other programs have no base model" in lines[-2]


def test_the_card_says_what_it_is(run: Path, tmp_path: Path) -> None:
    export(run, "webui", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert card.startswith("---\ntags:\n")
    assert "# license: fill in" in card
    assert "| `<new2>` | cat | animal | `photo of a <new2> cat` |" in card
    assert "| `<new2>` | `new2` | `embedding:new2` | `<new2>` | `<new2>` |" in card
    assert "![what it draws](samples.jpg)" in card
    with Image.open(tmp_path / "out" / "samples.jpg") as sheet:
        assert sheet.width > 2 * 128
        assert sheet.height > 2 * 128
    export(run, "webui", tmp_path / "each", "--per-concept", "--license", "cc-by-4.0")
    card = (tmp_path / "each" / "README.md").read_text("utf-8")
    assert "license: cc-by-4.0" in card
    assert "learned on top of the earlier ones" in card
    said = [header(tmp_path / "each" / f"family-new{number}.safetensors") for number in (1, 2)]
    assert [each["modelspec.description"] for each in said] == [
        "1 concept learned: <new1> (cat).",
        "1 concept learned on top of <new1>: <new2> (cat).",
    ]


def test_pictures_are_those_of_the_exported_concepts(run: Path, tmp_path: Path) -> None:
    export(run, "webui", tmp_path / "out", "--upto", "<new1>", "--per-concept")
    with Image.open(tmp_path / "out" / "family-new1.png") as preview:
        assert preview.getpixel((5, 5)) == (0, 100, 200)
    assert not list((tmp_path / "out").glob("*new2*"))
    (tmp_path / "bare" / "registry").mkdir(parents=True)
    for path in (run / "registry").iterdir():
        (tmp_path / "bare" / "registry" / path.name).write_bytes(path.read_bytes())
    export(tmp_path / "bare", "webui", tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("*.png"))
    assert "samples.jpg" not in (tmp_path / "plain" / "README.md").read_text("utf-8")


def test_concepts_that_are_tokens_alone_are_files_of_tokens(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "tokens", tiny_base_model, share=0)
    export(run, "webui", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert len(list((tmp_path / "out" / "embeddings").iterdir())) == 2
    last = capsys.readouterr().out.splitlines()[-1]
    assert 'write "photo of a new2 cat"' in last
    assert "lora" not in last.lower()
