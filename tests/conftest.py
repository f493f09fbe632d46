"""Fixtures: tiny random models, made once a session, and the state of the process left clean."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from cns_lightning.diffusion.base_model import BaseModel

torch.set_num_threads(1)

SECOND_TEXT_WIDTH = 20
TIME_WIDTH = 8
LONGEST = (
    "tests/runs/",
    "tests/slurm/",
    "tests/training/",
    "tests/test_release.py",
    "tests/docs/",
    "tests/ui/",
    "tests/export/test_other_",
    "tests/experiments/",
    "tests/cli/test_launch.py",
)
"""What takes minutes in few tests, most of it waiting for processes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the longest files, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


@pytest.fixture(autouse=True)
def process_left_clean() -> Iterator[None]:
    """Puts back what one test may leave to the next: default precision, gradient mode, process group."""
    dtype, has_gradient = torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(has_gradient)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes pillow-heif one that is not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


@pytest.fixture(scope="session")
def tiny_base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a random Stable-Diffusion-1.5-shaped model; tests must not write into it."""
    from cns_lightning.miniature.tiny import tiny_base_model

    return tiny_base_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def pair(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Returns base model, sequence file and run folder of an uninterrupted run in two processes."""
    from tests.runs.learning import write_sequence
    from tests.runs.processes import two_processes

    folder = tmp_path_factory.mktemp("processes")
    sequence = write_sequence(folder, ["cat", "dog"])
    assert two_processes(tiny_base_model, sequence, folder / "run")[0] == 0
    return tiny_base_model, sequence, folder / "run"


@pytest.fixture(scope="session")
def tiny_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a random CLIPModel; tests must not write into it."""
    from cns_lightning.miniature.tiny import write_tiny_judge

    return write_tiny_judge(tmp_path_factory.mktemp("models") / "judge")


@pytest.fixture(scope="session")
def tiny_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a random vision transformer; tests must not write into it."""
    import torch
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("models") / "vit"
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=28, patch_size=14
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def base(tiny_base_model: Path) -> BaseModel:
    """Returns the tiny base model, freshly loaded."""
    from cns_lightning.diffusion.base_model import BaseModel

    return BaseModel.load(str(tiny_base_model))


@pytest.fixture(scope="session")
def tiny_xl_base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a random SDXL-shaped model: two text encoders, and the second has the legacy end token."""
    from diffusers import EulerDiscreteScheduler
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    from cns_lightning.diffusion.loading import quiet_loading, stock_pipelines
    from cns_lightning.miniature import tiny

    _, xl = stock_pipelines()
    sampler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    folder = tmp_path_factory.mktemp("models") / "tiny_xl"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        tokenizer = tiny.tiny_tokenizer(folder / "tokenizer")
        second = CLIPTokenizer.from_pretrained(folder / "tokenizer", pad_token="!")
        width = SECOND_TEXT_WIDTH
        first_config = tiny.tiny_text_config(tokenizer)
        second_config = tiny.tiny_text_config(tokenizer, hidden_size=width, projection_dim=width, eos_token_id=2)
        pipeline = xl(
            vae=tiny.tiny_autoencoder(),
            text_encoder=CLIPTextModel(first_config),
            text_encoder_2=CLIPTextModelWithProjection(second_config),
            tokenizer=tokenizer,
            tokenizer_2=second,
            unet=tiny.tiny_unet(
                tiny.TEXT_WIDTH + width,
                transformer_layers_per_block=2,
                addition_embed_type="text_time",
                addition_time_embed_dim=TIME_WIDTH,
                projection_class_embeddings_input_dim=width + 6 * TIME_WIDTH,
            ),
            scheduler=sampler,  # type: ignore[arg-type]
        )
    with quiet_loading():
        pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def xl_base(tiny_xl_base_model: Path) -> BaseModel:
    """Returns the tiny SDXL base model, freshly loaded."""
    from cns_lightning.diffusion.base_model import BaseModel

    return BaseModel.load(str(tiny_xl_base_model))
