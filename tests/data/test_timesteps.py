"""Pictures of a concept and of its class draw their timesteps alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cns_lightning.data.module import ConceptDataModule, StageDataset
from cns_lightning.data.prior_pictures import PriorPictures
from cns_lightning.data.stage_latents import RunContext
from tests.runs.learning import write_sequence


@pytest.mark.parametrize(("power", "mean"), [(1.0, 1 / 2), (3.0, 3 / 4)])
def test_a_power_holds_for_pictures_of_the_class_too(tmp_path: Path, power: float, mean: float) -> None:
    data = ConceptDataModule(
        str(write_sequence(tmp_path, ["cat"])), batch_size=2, steps=3, prior=PriorPictures(2), timestep_power=power
    )
    data.connect(
        RunContext(
            encode=lambda pixels: torch.nn.functional.avg_pool2d(pixels, 4),
            resolution=32, latent_scale=4, timesteps=1000, names_class_word=True,
            class_latents=lambda concept: torch.zeros(2, 3, 8, 8), position=lambda: (0, 0), next_stage=lambda: 0,
        )
    )  # fmt: skip
    data.prepare(0)
    samples = [StageDataset(data)[0, step, 0] for step in range(200)]
    for name in ("timestep", "prior_timestep"):
        drawn = torch.tensor([sample[name] for sample in samples]).double() / 1000
        # Three standard errors of 200 draws are at most 0.061.
        assert drawn.mean().item() == pytest.approx(mean, abs=0.061)
