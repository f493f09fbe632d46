"""Base models are found by structure, frozen and identified."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.text import ConceptTokens
from cns_lightning.errors import UserError
from cns_lightning.miniature.tiny import tiny_base_model as write_tiny_base_model


def change_config(folder: Path, part: str, **changes: object) -> None:
    path = next((folder / part).glob("*config.json"))
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


@pytest.fixture
def copy(tiny_base_model: Path, tmp_path: Path) -> Path:
    """Returns a copy of the tiny model that may be spoiled."""
    return Path(shutil.copytree(tiny_base_model, tmp_path / "model"))


def test_sizes_come_from_the_parts(base: BaseModel, xl_base: BaseModel) -> None:
    assert (base.resolution, base.latent_shape, base.latent_scale, base.text_width) == (32, (4, 8, 8), 4, 12)
    assert (len(base.tokenizers), len(base.text_encoders), base.is_xl) == (1, 1, False)
    assert (len(xl_base.tokenizers), len(xl_base.text_encoders), xl_base.is_xl) == (2, 2, True)
    assert xl_base.text_width == 12 + 20
    assert (base.zeroes_empty_prompt, xl_base.zeroes_empty_prompt) == (False, True)


def test_everything_is_frozen_and_evaluating(xl_base: BaseModel) -> None:
    for part in (xl_base.vae, xl_base.unet, *xl_base.text_encoders):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_noise_scheduler_has_the_betas_of_the_sampler(base: BaseModel) -> None:
    assert torch.equal(base.noise_scheduler.betas, base.scheduler.betas)
    assert base.noise_scheduler.config["prediction_type"] == "epsilon"


def test_dtype_and_device_are_as_asked(tiny_base_model: Path) -> None:
    base = BaseModel.load(str(tiny_base_model), dtype=torch.bfloat16, device="cpu")
    assert base.dtype == base.vae.dtype == base.text_encoders[0].dtype == torch.bfloat16
    assert base.device == torch.device("cpu")


def test_fingerprint_depends_on_the_pretrained_weights_alone(tiny_base_model: Path, tmp_path: Path) -> None:
    base = BaseModel.load(str(tiny_base_model))
    fingerprint = base.fingerprint()
    ConceptTokens(base).add("<new1>")
    with torch.no_grad():
        next(iter(base.unet.parameters())).add_(1)
    assert base.fingerprint() == fingerprint
    assert BaseModel.load(str(tiny_base_model), dtype=torch.bfloat16).fingerprint() == fingerprint
    assert BaseModel.load(str(write_tiny_base_model(tmp_path / "other", seed=1))).fingerprint() != fingerprint


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_fingerprint_notices_a_change_in_the_last_layer_of_any_part(base: BaseModel, copy: Path, part: str) -> None:
    file = next((copy / part).glob("*.safetensors"))
    tensors = load_file(file)
    name = sorted(each for each in tensors if each.endswith("bias"))[-1]
    tensors[name][-1] += 1e-3
    save_file(tensors, file, {"format": "pt"})
    changed = BaseModel.load(str(copy))
    assert changed.fingerprint() != base.fingerprint()
    assert changed.fingerprints()[1] == base.fingerprints()[1]  # what earlier versions took no notice of


def test_fingerprint_notices_another_prediction_type(base: BaseModel, copy: Path) -> None:
    change_config(copy, "scheduler", prediction_type="v_prediction")
    assert BaseModel.load(str(copy)).fingerprint() != base.fingerprint()


def test_writing_the_tiny_model_is_reproducible_and_leaves_the_random_state(tmp_path: Path, base: BaseModel) -> None:
    before = torch.get_rng_state()
    folder = write_tiny_base_model(tmp_path / "again")
    assert torch.equal(torch.get_rng_state(), before)
    again = BaseModel.load(str(folder))
    for part, other in (
        (base.unet, again.unet),
        (base.vae, again.vae),
        (base.text_encoders[0], again.text_encoders[0]),
    ):
        for name, value in part.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_pipeline_is_stock_and_shares_the_parts(base: BaseModel, xl_base: BaseModel) -> None:
    for model in (base, xl_base):
        pipe = model.pipeline()
        assert type(pipe).__module__.startswith("diffusers.")
        assert pipe.unet is model.unet
        assert pipe.text_encoder is model.text_encoders[0]
        assert pipe.scheduler is not model.scheduler
        assert dict(pipe.scheduler.config) == dict(model.scheduler.config)


def test_saved_pipeline_opens_as_the_same_base_model(xl_base: BaseModel, tmp_path: Path) -> None:
    xl_base.pipeline().save_pretrained(tmp_path)
    assert BaseModel.load(str(tmp_path)).fingerprint() == xl_base.fingerprint()


def test_encode_gives_the_scaled_mean(base: BaseModel) -> None:
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = base.encode(pixels)
    assert base.vae.quant_conv is not None
    moments = base.vae.quant_conv(base.vae.encoder(pixels))
    assert latents.dtype == torch.float32
    assert torch.equal(latents, moments[:, :4] * base.vae.config["scaling_factor"])


def test_encode_in_half_precision_does_not_overflow(base: BaseModel) -> None:
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = base.encode(pixels)
    base.to(dtype=torch.float16)
    assert base.vae.config["force_upcast"]
    latents = base.encode(pixels)
    assert torch.allclose(latents, expected, atol=1e-2)
    assert base.vae.dtype == torch.float16


def test_half_precision_variant_is_found(base: BaseModel, tmp_path: Path) -> None:
    pipe = BaseModel(base.pipeline(), "copy").to(dtype=torch.float16).pipeline()
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert not (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()
    loaded = BaseModel.load(str(tmp_path))
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.unet.conv_in.weight, base.unet.conv_in.weight.float())


def test_missing_folder_names_what_can_be_given(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"nowhere: there is no such folder or file\. Give miniature, a diffusers folder"
    ):
        BaseModel.load(str(tmp_path / "nowhere"))


def test_folder_of_something_else_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"it has no model_index\.json, it holds notes\.txt, photos/"):
        BaseModel.load(str(tmp_path))


def test_damaged_index_is_named(copy: Path) -> None:
    (copy / "model_index.json").write_text("{", "utf-8")
    with pytest.raises(UserError, match=r"model_index\.json: is not valid JSON"):
        BaseModel.load(str(copy))


def test_missing_parts_are_all_named(copy: Path) -> None:
    shutil.rmtree(copy / "vae")
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(UserError, match=r"names tokenizer, vae, and there is no such folder"):
        BaseModel.load(str(copy))


def test_truncated_weights_are_named(copy: Path) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"unet/diffusion_pytorch_model\.safetensors: is damaged"):
        BaseModel.load(str(copy))


def test_pickled_weights_are_not_read(copy: Path) -> None:
    (copy / "unet" / "diffusion_pytorch_model.safetensors").rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"unet holds no safetensors weights, only diffusion_pytorch_model\.bin\. Convert"
    ):
        BaseModel.load(str(copy))


def test_weights_that_do_not_fit_are_the_users_mistake(copy: Path) -> None:
    change_config(copy, "unet", block_out_channels=[8, 32])
    with pytest.raises(UserError, match="cannot be opened by diffusers"):
        BaseModel.load(str(copy))


def test_other_kinds_of_pipelines_are_refused(copy: Path) -> None:
    index = json.loads((copy / "model_index.json").read_text("utf-8"))
    index["transformer"] = index.pop("unet")
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}), "utf-8")
    with pytest.raises(UserError, match=r"is a FluxPipeline: it has no unet\. Give a Stable Diffusion"):
        BaseModel.load(str(copy))


def test_models_that_change_the_text_states_are_refused(base: BaseModel) -> None:
    pipe = base.pipeline()
    pipe.unet.register_to_config(encoder_hid_dim_type="text_proj")
    with pytest.raises(UserError, match="encoder_hid_dim_type text_proj"):
        BaseModel(pipe, "odd")


def test_inpainting_models_are_refused(base: BaseModel) -> None:
    pipe = base.pipeline()
    pipe.unet.register_to_config(in_channels=9)
    with pytest.raises(UserError, match="9 input channels on 4 latent ones"):
        BaseModel(pipe, "odd")


def test_text_of_another_width_is_refused(base: BaseModel) -> None:
    pipe = base.pipeline()
    pipe.unet.register_to_config(cross_attention_dim=768)
    with pytest.raises(UserError, match="reads text states 768 wide, and its text encoders give 12"):
        BaseModel(pipe, "odd")


def test_unknown_prediction_type_is_refused(copy: Path) -> None:
    change_config(copy, "scheduler", prediction_type="flow")
    with pytest.raises(UserError, match="prediction type flow"):
        BaseModel.load(str(copy))


def test_checkpoint_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.touch()
    with pytest.raises(UserError, match=r"is a \.ckpt, not a \.safetensors file"):
        BaseModel.load(str(path))


def test_hub_without_network_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"owner/name: is not a folder here .* hub cannot be reached\. Download it"):
        BaseModel.load("owner/name")
