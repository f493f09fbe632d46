"""The weights that ship: stock libraries open them, and they are as good as docs/miniature.md says."""

from typing import Any

import numpy
import pytest
import torch

from benchmarks.miniature import accuracy, concept_pictures, fidelity, file_size, held_out_renders
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.miniature import base_model_path, judge_path
from cns_lightning.miniature.world import sampling


@pytest.fixture(scope="module")
def pipeline() -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(base_model_path(), dtype=torch.float32)


def test_all_files_together_are_small() -> None:
    assert file_size(base_model_path()) + file_size(judge_path()) <= 40e6


def test_stock_diffusers_samples_it_and_its_k_and_v_are_large_enough(pipeline: Any) -> None:
    names = [name for name, _ in pipeline.unet.named_parameters() if "attn2.to_k" in name or "attn2.to_v" in name]
    parameters = dict(pipeline.unet.named_parameters())
    assert 0.05 * sum(parameters[name].numel() for name in names) > 20_000
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    (picture,) = pipeline("a photo of a red cat on the beach", num_inference_steps=4, generator=generator).images
    assert picture.size == (64, 64)
    assert numpy.asarray(picture).std() > 20


def test_every_word_of_the_world_is_one_token(pipeline: Any) -> None:
    for word in sampling.words():
        assert len(pipeline.tokenizer(word, add_special_tokens=False).input_ids) == 1, word


def test_the_judge_knows_kinds_colours_and_scenes() -> None:
    found = accuracy(ClipEncoder(judge_path()), *held_out_renders(300))
    assert min(found.values()) >= 0.92, found


def test_the_autoencoder_keeps_the_concepts(pipeline: Any) -> None:
    found = fidelity(ClipEncoder(judge_path()), pipeline, concept_pictures())
    assert found["psnr_mean"] >= 27
    assert found["clip_i_mean"] >= 0.95
