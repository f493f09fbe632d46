"""Keys, shapes and metadata at the sizes of Stable Diffusion 1.5, 2.1 and SDXL, without weights."""

import json
import re
from itertools import product
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.export.family import Family
from cns_lightning.export.learned import LearnedConcept
from cns_lightning.export.metadata import LORA, TEXTUAL_INVERSION, FileFacts, model_spec, network_metadata, sidecar
from cns_lightning.export.shira import sparse_adapter
from cns_lightning.export.tokens import embedding_tensors
from cns_lightning.export.webui import difference_tensors, encode_differences

SD1: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
SD2: dict[str, Any] = {
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SDXL: dict[str, Any] = {
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SMALL_PLACES = [
    *(f"down_blocks_{block}_attentions_{layer}" for block in (0, 1, 2) for layer in (0, 1)),
    "mid_block_attentions_0",
    *(f"up_blocks_{block}_attentions_{layer}" for block in (1, 2, 3) for layer in (0, 1, 2)),
]
XL_PLACES = [
    *((f"down_blocks_1_attentions_{layer}", 2) for layer in (0, 1)),
    *((f"down_blocks_2_attentions_{layer}", 10) for layer in (0, 1)),
    ("mid_block_attentions_0", 10),
    *((f"up_blocks_0_attentions_{layer}", 10) for layer in (0, 1, 2)),
    *((f"up_blocks_1_attentions_{layer}", 2) for layer in (0, 1, 2)),
]
"""Attentions and their transformer blocks, as the programs list them."""


def keys_of(places: list[tuple[str, int]]) -> set[str]:
    return {
        f"lora_unet_{place}_transformer_blocks_{block}_attn2_to_{part}.diff"
        for place, blocks in places
        for block, part in product(range(blocks), "kv")
    }


def differences(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    return difference_tensors({name: each.weight for name, each in key_value_projections(unet).items()}, torch.float16)


@pytest.mark.parametrize(
    ("config", "count", "widths", "megabytes"),
    [
        (SD1, 32, {320, 640, 1280}, 38.3),
        (SD2, 32, {320, 640, 1280}, 51.1),
        (SDXL, 140, {640, 1280}, 681.6),
    ],
    ids=["sd15", "sd21", "sdxl"],
)
def test_keys_and_shapes_are_those_that_every_program_places(
    config: dict[str, Any], count: int, widths: set[int], megabytes: float
) -> None:
    found = differences(config)
    places = XL_PLACES if count == 140 else [(place, 1) for place in SMALL_PLACES]
    assert len(found) == count
    assert set(found) == keys_of(places)
    width = config["cross_attention_dim"]
    assert {tensor.shape for tensor in found.values()} == {(rows, width) for rows in widths}
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    assert sum(tensor.numel() for tensor in found.values()) * 2 / 1e6 == pytest.approx(megabytes, abs=0.05)


def in_original_layout(key: str) -> str:
    """Returns where A1111 looks for a key: the name of the layer in the original layout."""
    if found := re.match(r"lora_unet_down_blocks_(\d+)_attentions_(\d+)", key):
        block, layer = map(int, found.groups())
        return f"input_blocks.{1 + 3 * block + layer}.1"
    if found := re.match(r"lora_unet_up_blocks_(\d+)_attentions_(\d+)", key):
        block, layer = map(int, found.groups())
        return f"output_blocks.{3 * block + layer}.1"
    assert key.startswith("lora_unet_mid_block_attentions_0_")
    return "middle_block.1"


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (SD1, {*(f"input_blocks.{n}.1" for n in (1, 2, 4, 5, 7, 8)), *(f"output_blocks.{n}.1" for n in range(3, 12))}),
        (SDXL, {*(f"input_blocks.{n}.1" for n in (4, 5, 7, 8)), *(f"output_blocks.{n}.1" for n in range(6))}),
    ],
    ids=["sd15", "sdxl"],
)
def test_every_key_names_a_layer_of_the_original_layout(config: dict[str, Any], layers: set[str]) -> None:
    assert {in_original_layout(key) for key in differences(config)} == layers | {"middle_block.1"}


def detected(metadata: dict[str, str]) -> str | None:
    """Returns for which base model A1111 takes a file: it hides those of other ones."""
    if metadata.get("ss_base_model_version", "").startswith("sdxl_"):
        return "SDXL"
    if metadata.get("ss_v2", "") == "True":
        return "SD2"
    return "SD1" if metadata else None


CAT = LearnedConcept("<momo>", "cat", "animal", "photo of a <momo> cat", (torch.zeros(1, 4),), True)
TOKEN_ALONE = LearnedConcept("<zed>", "style", "style", "a picture by <zed>", (torch.zeros(1, 4),), True)


def facts(family: Family, kind: str = LORA, licence: str = "") -> FileFacts:
    stems = {"<momo>": "cnsmomo", "<zed>": "zed1"}
    return FileFacts(
        "family", kind, family, "some/model", "f00d", (CAT, TOKEN_ALONE), stems, "Two concepts.", "2026-01-02T03:04:05",
        licence,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("width", "encoders", "prediction", "name", "architecture", "version"),
    [
        (768, 1, "epsilon", "SD1", "stable-diffusion-v1", "sd_v1"),
        (1024, 1, "epsilon", "SD2", "stable-diffusion-v2-512", "sd_v2"),
        (1024, 1, "v_prediction", "SD2", "stable-diffusion-v2-768-v", "sd_v2_v"),
        (2048, 2, "epsilon", "SDXL", "stable-diffusion-xl-v1-base", "sdxl_base_v1-0"),
    ],
)
def test_metadata_say_the_base_model_in_every_program_s_words(
    width: int, encoders: int, prediction: str, name: str, architecture: str, version: str
) -> None:
    family = Family.of(width, encoders, prediction, 512)
    assert family.is_known
    encoded = encode_differences({"down.to_k.weight": torch.ones(2, 2)}, torch.float32)
    found = network_metadata(facts(family), encoded.network)
    assert all(isinstance(value, str) for value in found.values())
    assert detected(found) == name == sidecar(facts(family))["sd version"]
    assert found["ss_base_model_version"] == version
    assert found["modelspec.architecture"] == f"{architecture}/lora"
    assert found["modelspec.prediction_type"] == ("v" if prediction == "v_prediction" else "epsilon")
    assert found["modelspec.implementation"].startswith("https" if name == "SDXL" else "diffusers")
    assert "ot_branch" not in found
    token = model_spec(facts(family, TEXTUAL_INVERSION))
    assert token["modelspec.architecture"] == f"{architecture}/textual-inversion"
    assert token["modelspec.implementation"].startswith("https")


def test_metadata_name_the_triggers() -> None:
    family = Family.of(768, 1, "epsilon", 512)
    found = network_metadata(facts(family, licence="cc-by-4.0"), {"ss_network_module": "x"})
    assert json.loads(found["ss_tag_frequency"]) == {"cns": {"cnsmomo cat": 1, "zed1": 1}}
    assert found["modelspec.trigger_phrase"] == "cnsmomo cat, zed1"
    assert "photo of a cnsmomo cat; a picture by zed1" in found["modelspec.usage_hint"]
    assert (found["ss_output_name"], found["modelspec.title"]) == ("family", "family")
    assert found["modelspec.license"] == "cc-by-4.0"
    assert found["modelspec.resolution"] == "512x512"
    assert [each["token"] for each in json.loads(found["cns.concepts"])] == ["<momo>", "<zed>"]
    assert "modelspec.license" not in model_spec(facts(family))


@pytest.mark.parametrize(
    ("widths", "expected"),
    [((768,), {"emb_params": (2, 768)}), ((1024,), {"emb_params": (2, 1024)}),
     ((768, 1280), {"clip_l": (2, 768), "clip_g": (2, 1280)})],
)  # fmt: skip
def test_embedding_files_at_full_width(widths: tuple[int, ...], expected: dict[str, tuple[int, int]]) -> None:
    rows = tuple(torch.zeros(2, width) for width in widths)
    found = embedding_tensors(LearnedConcept("<a1>", "cat", "animal", "a <a1> cat", rows, True))
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == expected
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def test_size_of_a_sparse_adapter_of_stable_diffusion() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD1)
    delta = {name: torch.zeros(each.weight.shape) for name, each in key_value_projections(unet).items()}
    for matrix in delta.values():
        # 5.8 % of the entries, spread evenly.
        places = torch.linspace(0, matrix.numel() - 1, round(0.058 * matrix.numel())).long()
        matrix.view(-1)[places] = 1
    adapter = sparse_adapter(delta)
    assert adapter.rank == 28
    assert len(adapter.modules) == 32
    size = sum(tensor.numel() * tensor.element_size() for tensor in adapter.tensors.values())
    assert size / 1e6 == pytest.approx(16.6, abs=0.1)


@pytest.mark.parametrize(("width", "encoders"), [(256, 1), (32, 2), (2048, 1)])
def test_models_of_other_widths_are_known_as_such(width: int, encoders: int) -> None:
    assert not Family.of(width, encoders, "epsilon", 64).is_known
