"""What the small files of a base model tell: the words of its tokenizers, its lengths, whether it is whole."""

import json
import shutil
from pathlib import Path

import pytest

from cns_lightning.diffusion.loading import load_stock_pipeline
from cns_lightning.diffusion.text import token_ids
from cns_lightning.doctor.base_parts import find_parts
from cns_lightning.doctor.findings import Severity
from cns_lightning.doctor.texts import TextSide, prompt_findings, token_findings
from cns_lightning.errors import UserError
from cns_lightning.export.tokens import stands_in
from cns_lightning.sequences.sequence import Concept, EvaluationPrompts
from cns_lightning.sequences.templates import PromptTemplates
from tests.doctor.photos import write_good

LONG = " ".join(["cat"] * 90)


@pytest.fixture(params=["tiny_base_model", "tiny_xl_base_model"])
def folder(request: pytest.FixtureRequest) -> Path:
    """Returns the folder of either kind of base model."""
    return request.getfixturevalue(request.param)


def test_sizes(folder: Path) -> None:
    parts = find_parts(str(folder))
    assert parts.resolution == 32
    assert len(parts.encoders) == (2 if "xl" in folder.name else 1)
    assert not parts.is_remote


def test_tokens_that_a_run_would_refuse(folder: Path) -> None:
    side = TextSide(find_parts(str(folder)))
    found = token_findings(side.as_base, ["<cnsmomo>", "<cat>", "<|endoftext|>"])
    stopped = [each for each in found if each.severity is Severity.STOPS]
    assert len(stopped) == 1
    assert "already has the token <|endoftext|>" in stopped[0].problem
    (word,) = [each for each in found if each.severity is Severity.NOTE]
    assert word.where == "<cat>"
    assert "cnscat" in word.remedy
    ids = side.tokenizers[0]("a <cnsmomo> cat", add_special_tokens=False).input_ids
    assert len(ids) == 3


def test_a_token_that_ends_as_the_ids_of_another(folder: Path) -> None:
    base = TextSide(find_parts(str(folder))).as_base
    found = [each for each in token_findings(base, ["<new1>", "<brandnew1>"]) if each.severity is Severity.WARNING]
    ids = [token_ids(base.tokenizers[0], name) for name in ("new1", "brandnew1")]
    assert stands_in(*ids) == bool(found)
    for each in found:
        assert each.where == "<brandnew1>"
        assert "export calls it cnsbrandnew1 there" in each.remedy or "export calls it brandnewx1" in each.remedy


def test_prompts_that_are_cut(folder: Path, tmp_path: Path) -> None:
    side = TextSide(find_parts(str(folder)))
    write_good(tmp_path, 0)
    (tmp_path / "good1.txt").write_text(f"a photo of {LONG} on a sofa", "utf-8")
    (tmp_path / "good2.txt").write_text("asleep", "utf-8")
    concept = Concept("<new1>", "cat", "animal", tmp_path)
    token_findings(side.as_base, ["<new1>"])
    prompts = EvaluationPrompts(("a <new1> cat", f"a <new1> cat and {LONG} in the garden"))
    templates = PromptTemplates(animal="photo of a {token} {class_word} " + LONG)
    found = prompt_findings(side.as_base, [concept], prompts, templates, ["a cat", LONG], "family.yaml")
    cut = {each.where: each for each in found if each.severity is Severity.WARNING}
    assert set(cut) == {
        "family.yaml: prompts.single[1]", "samples.base_prompts[1]", "data.templates.animal[0]",
        str(tmp_path / "good1.txt"),
    }  # fmt: skip
    prompt = cut["family.yaml: prompts.single[1]"]
    assert "has 97 tokens, the text encoder reads 75" in prompt.problem
    assert "garden" not in prompt.remedy  # shortened to a line
    assert prompt.remedy.startswith('Shorten it; not read: "cat cat')
    (note,) = [each for each in found if each.severity is Severity.NOTE]
    assert "names neither <new1> nor cat" in note.problem
    assert note.names == ("good2.txt",)


def damage(folder: Path, how: str) -> None:
    """Damages a copy of a base model."""
    if how == "no index":
        (folder / "model_index.json").unlink()
    elif how == "no vae":
        shutil.rmtree(folder / "vae")
    elif how == "no part":
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
        del index["unet"]
        (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
    elif how == "cut off":
        path = folder / "unet" / "diffusion_pytorch_model.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
    elif how == "pickles":
        path = folder / "unet" / "diffusion_pytorch_model.safetensors"
        path.rename(path.with_suffix(".bin"))
    else:
        (folder / "unet" / "config.json").write_text("{", "utf-8")


@pytest.mark.parametrize("how", ["no index", "no vae", "no part", "cut off", "pickles", "no json"])
def test_what_is_refused_here_is_refused_by_the_loader(tiny_base_model: Path, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_base_model, folder)
    find_parts(str(folder))
    damage(folder, how)
    for look in (find_parts, load_stock_pipeline):
        with pytest.raises(UserError):
            look(str(folder))


@pytest.mark.parametrize("source", ["nowhere", "owner/name/more", "../nowhere", "owner/name"])
def test_nothing_there(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    messages = []
    for look in (find_parts, load_stock_pipeline):
        with pytest.raises(UserError) as refused:
            look(source)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


def test_a_repository_in_the_download_cache(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, commit = tmp_path / "models--owner--name", "0" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    snapshot = cache / "snapshots" / commit
    shutil.copytree(tiny_base_model, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    parts = find_parts("owner/name")
    assert (parts.resolution, parts.is_remote, sorted(parts.numbers)) == (32, True, ["text_encoder", "unet", "vae"])
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert sorted(find_parts("owner/name").numbers) == ["text_encoder", "vae"]


def test_a_single_file(tiny_base_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(tiny_base_model / "unet" / "diffusion_pytorch_model.safetensors", path)
    assert find_parts(str(path)).folder is None
    shutil.copytree(tiny_base_model, tmp_path / "model")
    assert find_parts(str(path)).resolution == 32
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match="is damaged or not a safetensors file"):
        find_parts(str(path))
