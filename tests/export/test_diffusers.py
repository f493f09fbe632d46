"""``diffusers``: stock diffusers opens the folder and draws what the run draws; no file tells of this machine."""

import json
import re
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.sampling import generate
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.registry import NeuronRegistry
from tests.export.runs import export, trained_weights, weights_of, write_run

PROMPTS = ["a photo of <new1> cat", "a <new2>, and a <new1>."]


def pixels(pipe: Any) -> numpy.ndarray:
    pictures = generate(pipe, PROMPTS, [3], steps=2)
    return numpy.stack([numpy.asarray(picture, dtype=numpy.int16) for picture in pictures])


def test_the_folder_draws_what_the_run_draws(any_run: Path, tmp_path: Path) -> None:
    export(any_run, "diffusers", tmp_path / "out")
    pipe, own = DiffusionPipeline.from_pretrained(tmp_path / "out"), load_pipeline(any_run)
    assert type(pipe) is type(own)
    drawn, expected = pixels(pipe), pixels(own)
    assert int(abs(drawn - expected).max()) <= 1
    assert int(abs(drawn - pixels(load_pipeline(any_run, "<new1>"))).max()) > 1
    unet = weights_of(own.unet)
    assert all(torch.equal(weight, unet[name]) for name, weight in weights_of(pipe.unet).items())


def test_the_folder_up_to_a_concept_does_not_know_later_ones(run: Path, tmp_path: Path) -> None:
    export(run, "diffusers", tmp_path / "out", "--upto", "<new1>")
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "out")
    own = trained_weights(run, "<new1>")
    assert all(torch.equal(weight, own[name]) for name, weight in weights_of(pipe.unet).items())
    assert "<new1>" in pipe.tokenizer.get_vocab()
    assert "<new2>" not in pipe.tokenizer.get_vocab()
    assert not any("new2" in path.name for path in (tmp_path / "out").rglob("*"))


def test_no_file_tells_of_this_machine(any_run: Path, tmp_path: Path) -> None:
    places = [str(any_run), NeuronRegistry.load(any_run / "registry").base_model, str(tmp_path), str(Path.home())]
    for what, more in (("diffusers", []), ("webui", ["--bundle"]), ("shira", []), ("lora", ["--rank", "2"])):
        export(any_run, what, tmp_path / what, *more)
    export(any_run, "comfyui", tmp_path / "comfyui" / "w.json", "--prompt", "a <new1> cat")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 40
    for path in files:
        data = path.read_bytes()
        assert not [place for place in places if place.encode() in data], path
        assert b'_name_or_path": "/' not in data, path


def test_older_transformers_find_their_files_and_names(any_run: Path, tmp_path: Path) -> None:
    export(any_run, "diffusers", tmp_path / "out")
    encoders = sorted((tmp_path / "out").glob("text_encoder*"))
    assert len(encoders) == (2 if "xl" in any_run.name else 1)
    for folder in encoders:
        names = set(load_file(folder / "model.safetensors"))
        others = {name for name in names if not name.startswith("text_model.")}
        assert others <= {"text_projection.weight"}
        assert "text_model.embeddings.token_embedding.weight" in names
    for folder in sorted((tmp_path / "out").glob("tokenizer*")):
        vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
        assert json.loads((folder / "added_tokens.json").read_text("utf-8")) == {
            "<new1>": len(vocabulary), "<new2>": len(vocabulary) + 1,
        }  # fmt: skip
        merges = (folder / "merges.txt").read_text("utf-8").splitlines()
        assert merges[0].startswith("#version")
        assert all(len(line.split(" ")) == 2 for line in merges[1:])
        assert all("".join(line.split(" ")) in vocabulary for line in merges[1:])


def test_embeddings_load_into_a_pipeline_of_the_base_model(any_run: Path, tmp_path: Path) -> None:
    export(any_run, "diffusers", tmp_path / "out")
    registry = NeuronRegistry.load(any_run / "registry")
    pipe = BaseModel.load(registry.base_model).pipeline()
    parts = [("learned_embeds", pipe.tokenizer, pipe.text_encoder)]
    if hasattr(pipe, "text_encoder_2"):
        parts.append(("learned_embeds_2", pipe.tokenizer_2, pipe.text_encoder_2))
    for number, (folder, tokenizer, encoder) in enumerate(parts):
        files = sorted((tmp_path / "out" / folder).iterdir())
        assert [file.name for file in files] == ["new1.safetensors", "new2.safetensors"]
        for file, token in zip(files, registry.tokens, strict=True):
            pipe.load_textual_inversion(file, tokenizer=tokenizer, text_encoder=encoder)
            row = tokenizer.convert_tokens_to_ids(token)
            assert torch.equal(encoder.get_input_embeddings().weight[row], registry.embedding(token, number)[0])


@pytest.mark.parametrize("vectors", [1, 2])
def test_the_python_of_the_card_runs(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vectors: int
) -> None:
    run = write_run(tmp_path / "run", tiny_base_model, vectors=vectors)
    export(run, "diffusers", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    drawing, loading = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, Any] = {}
    exec(drawing.replace('cat")', 'cat", num_inference_steps=1)'), names)
    assert "<new2>" in names["pipe"].tokenizer.get_vocab()
    assert ("<new2>_1" in names["pipe"].tokenizer.get_vocab()) == (vectors == 2)
    names["pipe"] = BaseModel.load(str(tiny_base_model)).pipeline()
    exec(loading, names)
    assert "<new2>" in names["pipe"].tokenizer.get_vocab()


def test_half_precision_halves_the_folder(run: Path, tmp_path: Path) -> None:
    export(run, "diffusers", tmp_path / "out", "--dtype", "float16")
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        tensors = load_file(tmp_path / "out" / f"{part}.safetensors")
        assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float16}
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "out")
    own = trained_weights(run)
    assert all(torch.equal(weight, own[name].half().float()) for name, weight in weights_of(pipe.unet).items())


def test_the_last_line_is_python_that_draws(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(run, "diffusers", tmp_path / "out")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("next: in Python, diffusers.DiffusionPipeline.from_pretrained(")
    assert str(tmp_path / "out") in last
    compile(last.removeprefix("next: in Python, "), "last line", "eval")
