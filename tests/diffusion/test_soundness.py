"""A base model is whole, or refused by name before anything is learned."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.sampling import generate
from cns_lightning.diffusion.soundness import canonical
from cns_lightning.errors import UserError
from tests.diffusion.test_base_model import change_config
from tests.diffusion.test_single_file import in_original_layout

FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
WEIGHTS = {
    "unet": "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "vae": "decoder.conv_in.bias",
    "text_encoder": "encoder.layers.0.mlp.fc1.bias",
}


@pytest.fixture
def copy(tiny_base_model: Path, tmp_path: Path) -> Path:
    """Returns a copy of the tiny model that may be spoiled."""
    return Path(shutil.copytree(tiny_base_model, tmp_path / "model"))


def refused(source: Path) -> str:
    with pytest.raises(UserError) as found:
        BaseModel.load(str(source))
    return str(found.value)


@pytest.mark.parametrize("part", FILES)
def test_a_weight_that_is_missing_is_named(copy: Path, part: str) -> None:
    path = copy / part / FILES[part]
    tensors = load_file(path)
    (name,) = [each for each in tensors if canonical(each) == WEIGHTS[part]]
    del tensors[name]
    save_file(tensors, path, {"format": "pt"})
    assert f"{part} lacks {WEIGHTS[part]}" in refused(copy)


@pytest.mark.parametrize("part", FILES)
def test_a_weight_that_is_no_number_is_named(copy: Path, part: str) -> None:
    path = copy / part / FILES[part]
    tensors = load_file(path)
    (name,) = [each for each in tensors if canonical(each) == WEIGHTS[part]]
    tensors[name].view(-1)[-1] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    assert f"{part} holds numbers that are not finite in {WEIGHTS[part]}" in refused(copy)


@pytest.mark.parametrize("prefix", ["text_model.", ""])
def test_a_text_encoder_of_any_version_is_read(copy: Path, base: BaseModel, prefix: str) -> None:
    path = copy / "text_encoder" / FILES["text_encoder"]
    tensors = {prefix + name.removeprefix("text_model."): value for name, value in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
    assert BaseModel.load(str(copy)).fingerprint() == base.fingerprint()


def test_names_of_older_autoencoders_are_known() -> None:
    assert canonical("decoder.mid_block.attentions.0.proj_attn.bias") == "decoder.mid_block.attentions.0.to_out.0.bias"


@pytest.mark.parametrize("variant", [None, "fp16", "non_ema"])
def test_weights_in_pieces_of_any_variant_are_found(base: BaseModel, tmp_path: Path, variant: str | None) -> None:
    base.pipeline().save_pretrained(tmp_path, variant=variant, max_shard_size="60kB")
    assert len(list((tmp_path / "unet").glob("*-of-*.safetensors"))) > 1
    assert BaseModel.load(str(tmp_path)).fingerprint() == base.fingerprint()


def test_a_unet_without_its_size_is_refused(copy: Path) -> None:
    change_config(copy, "unet", sample_size=None)
    assert "unet/config.json: has no sample_size" in refused(copy)


def test_an_index_that_is_no_mapping_is_refused(copy: Path) -> None:
    (copy / "model_index.json").write_text("[]", "utf-8")
    assert "model_index.json: names no parts" in refused(copy)


def test_a_tokenizer_without_its_length_gets_that_of_the_text_encoder(copy: Path) -> None:
    path = copy / "tokenizer" / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8"))
    del settings["model_max_length"]
    path.write_text(json.dumps(settings), "utf-8")
    assert len(generate(BaseModel.load(str(copy)).pipeline(), ["a cat"], [0], steps=2)) == 1


# ---- single files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_files(tiny_base_model: Path, tmp_path: Path) -> Path:
    """Returns the path of a single file beside which the small files of its folder lie."""
    shutil.copytree(tiny_base_model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    return tmp_path / "model.safetensors"


def test_a_file_that_is_no_whole_checkpoint_says_what_it_is(base: BaseModel, small_files: Path) -> None:
    whole = in_original_layout(base)
    save_file({"lora_unet_mid_block_attentions_0.lora_down.weight": torch.zeros(4, 12)}, small_files)
    assert "is a LoRA" in refused(small_files)
    for kept, lacking in (
        ("model.diffusion_model.", "the autoencoder, the text encoder"),
        ("first_stage_model.", "the UNet, the text encoder"),
        ("cond_stage_model.", "the UNet, the autoencoder"),
    ):
        save_file({name: value for name, value in whole.items() if name.startswith(kept)}, small_files)
        assert f"it lacks {lacking}" in refused(small_files)


@pytest.mark.parametrize("ending", ["attn2.to_k.weight", "layers.0.mlp.fc1.bias", "decoder.conv_in.bias"])
def test_a_weight_that_is_missing_in_a_single_file_is_noticed(base: BaseModel, small_files: Path, ending: str) -> None:
    whole = in_original_layout(base)
    name = next(each for each in whole if each.endswith(ending))
    save_file({each: value for each, value in whole.items() if each != name}, small_files)
    assert "lacks" in refused(small_files)


def test_a_single_file_that_predicts_v_says_so(base: BaseModel, small_files: Path) -> None:
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file({**in_original_layout(base), **marks}, small_files)
    config = BaseModel.load(str(small_files)).noise_scheduler.config
    assert (config["prediction_type"], config["rescale_betas_zero_snr"]) == ("v_prediction", True)


def test_the_miniature_is_the_same_with_every_version_of_the_libraries() -> None:
    # To be written anew when its weights are.
    assert BaseModel.load("miniature").fingerprint().startswith("63343f1964c8")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_repository_of_the_hub_is_checked_as_a_folder_is(
    xl_base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str | None
) -> None:
    # The download cache of the hub, as it is after a download; nothing is fetched.
    cache, commit = tmp_path / "models--owner--name", "0" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit)
    snapshot = cache / "snapshots" / commit
    xl_base.pipeline().save_pretrained(snapshot, variant=variant)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for module in ("huggingface_hub.constants.HF_HUB_CACHE", "diffusers.pipelines.pipeline_utils.HF_HUB_CACHE"):
        monkeypatch.setattr(module, str(tmp_path), raising=False)
    assert BaseModel.load("owner/name").fingerprint() == xl_base.fingerprint()
    path = next((snapshot / "text_encoder_2").glob("*.safetensors"))
    tensors = load_file(path)
    del tensors[next(name for name in tensors if name.endswith("fc1.bias"))]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"base model owner/name: text_encoder_2 lacks"):
        BaseModel.load("owner/name")
