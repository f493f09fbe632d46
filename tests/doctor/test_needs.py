"""Estimates of memory and disk, beside what autograd keeps and what runs wrote."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.doctor.base_parts import BaseParts, find_parts
from cns_lightning.doctor.findings import Severity
from cns_lightning.doctor.machine import GPU, disk_findings, is_for_slurm, memory_findings, slurm_findings
from cns_lightning.doctor.needs import Settings, disk_needs, gigabytes, memory_needs, unet_size
from tests.docs.documents import ROOT

SETTINGS = Settings(concepts=2, batch=2, sheet=4)
STABLE_DIFFUSION: dict[str, Any] = {
    "sample_size": 64, "cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}  # fmt: skip
XL: dict[str, Any] = {
    "sample_size": 128, "cross_attention_dim": 2048, "block_out_channels": [320, 640, 1280], "layers_per_block": 2,
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2], "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
}  # fmt: skip


def stable_diffusion() -> BaseParts:
    """Returns the sizes of Stable Diffusion 1.5."""
    configs = {"unet": STABLE_DIFFUSION, "vae": {"block_out_channels": [128, 256, 512, 512]}}
    numbers = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
    return BaseParts("sd15", None, configs, numbers)


@pytest.mark.parametrize(
    ("config", "key_value", "kept"), [(STABLE_DIFFUSION, 19_169_280, 1.371), (XL, 340_787_200, 9.548)]
)
def test_published_sizes(config: dict[str, Any], key_value: int, kept: float) -> None:
    size = unet_size(config)
    assert size.key_value == key_value
    # Counted with saved_tensors_hooks on the whole UNet without data, in GiB of float32.
    assert size.kept * 4 / 2**30 == pytest.approx(kept, rel=0.05)


def test_the_configurations_say_what_is_estimated() -> None:
    sizes = {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840}
    xl = BaseParts("xl", None, {**stable_diffusion().configs, "unet": XL}, sizes)
    wide = {**STABLE_DIFFUSION, "sample_size": 96, "cross_attention_dim": 1024}
    sizes = {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840}
    sd21 = BaseParts("sd21", None, {**stable_diffusion().configs, "unet": wide}, sizes)
    for name, parts in {"sdxl": xl, "sd21": sd21, "sd15": stable_diffusion()}.items():
        path = ROOT / "configs" / "base" / f"{name}.yaml"
        content = yaml.safe_load(path.read_text("utf-8"))
        model = content["model"]
        settings = Settings(
            7, content["data"]["batch_size"], content["samples"]["pictures"],
            is_half=model.get("base_dtype", "float32") != "float32", precision="bf16-mixed",
            checkpointing=model.get("gradient_checkpointing", False),
        )  # fmt: skip
        needs = memory_needs(parts, settings)
        assert needs is not None
        said = f"a step about {gigabytes(needs.training)}, drawing samples {gigabytes(needs.sampling)}"
        assert said in path.read_text("utf-8"), (name, said)


def test_a_unet_that_is_built_otherwise_is_not_estimated() -> None:
    parts = stable_diffusion()
    parts.configs["unet"] = {**STABLE_DIFFUSION, "cross_attention_dim": [768, 768], "down_block_types": None}
    assert memory_needs(parts, SETTINGS) is None
    assert disk_needs(parts, SETTINGS) is None
    parts.configs["unet"] = {"sample_size": 64}
    assert memory_needs(parts, SETTINGS) is None


def kept_by_autograd(base: BaseModel) -> int:
    """Counts the numbers that autograd keeps of a step for one picture, weights left out."""
    for projection in key_value_projections(base.unet).values():
        projection.weight.requires_grad_(True)
    own = {weight.untyped_storage().data_ptr() for weight in base.unet.parameters()}
    seen: dict[int, int] = {}
    held = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
            held.append(tensor)  # or the next tensor may lie in the same place
        return tensor

    noise, states = torch.randn(1, *base.latent_shape), torch.randn(1, 77, base.text_width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        base.unet(noise, torch.tensor([10]), encoder_hidden_states=states, return_dict=False)
    return sum(seen.values())


def test_what_autograd_keeps_of_the_miniature() -> None:
    # At its size a real pass takes a moment; the tiny model of the tests is so small that texts outweigh pictures.
    parts, base = find_parts("miniature"), BaseModel.load("miniature")
    assert unet_size(parts.configs["unet"]).kept == pytest.approx(kept_by_autograd(base), rel=0.15)
    assert parts.resolution == base.resolution
    numbers = {"unet": base.unet, "vae": base.vae, "text_encoder": base.text_encoders[0]}
    assert parts.numbers == {name: sum(each.numel() for each in part.parameters()) for name, part in numbers.items()}


def test_memory_follows_the_settings() -> None:
    def peak(**changes: Any) -> float:
        needs = memory_needs(stable_diffusion(), replace(SETTINGS, **changes))
        assert needs is not None
        return needs.training

    assert 8e9 < peak() < 10e9
    assert peak(batch=1) < peak() < peak(batch=4)
    assert peak(checkpointing=True) < peak()
    assert peak(is_half=True) < peak()
    assert peak(per_picture=2) == peak(batch=2 * SETTINGS.batch)
    needs = memory_needs(stable_diffusion(), replace(SETTINGS, sheet=0))
    assert needs is not None
    assert needs.drawing == 0
    assert needs.peak == needs.training
    assert memory_needs(BaseParts("file", None), SETTINGS) is None


@pytest.mark.parametrize(
    ("free", "severity", "words"),
    [
        (24e9, Severity.NOTE, "Fits"),
        (8e9, Severity.WARNING, "Set model.gradient_checkpointing true: "),
        (6.2e9, Severity.WARNING, "Set model.gradient_checkpointing true, samples.pictures 0 and data.batch_size 1: "),
        (5e9, Severity.WARNING, "model.base_dtype bfloat16"),
        (1e9, Severity.WARNING, "Take a larger device"),
    ],
)
def test_a_gpu_that_is_too_small(free: float, severity: Severity, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cns_lightning.doctor.machine.gpu_memory", lambda is_free: free)
    monkeypatch.setattr("cns_lightning.doctor.machine.free_in_main_memory", lambda: 64e9)
    (found,) = memory_findings(stable_diffusion(), SETTINGS, "gpu", 1)
    assert found.severity is severity
    assert words in found.remedy
    assert "(an estimate)" in found.problem
    assert f"{GPU} has {gigabytes(free)}" in found.problem


def test_pictures_of_the_class_count_in_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with_class = replace(SETTINGS, batch=4, sheet=0, per_picture=2)
    one = memory_needs(stable_diffusion(), replace(with_class, batch=1))
    assert one is not None
    monkeypatch.setattr("cns_lightning.doctor.machine.gpu_memory", lambda is_free: one.peak + 1)
    (found,) = memory_findings(stable_diffusion(), with_class, "gpu", 1)
    assert f"about {gigabytes(one.peak)}" in found.remedy or "checkpointing" in found.remedy
    monkeypatch.setattr("cns_lightning.doctor.machine.gpu_memory", lambda is_free: one.peak - 1)
    (found,) = memory_findings(stable_diffusion(), with_class, "gpu", 1)
    assert not found.remedy.startswith("Set data.batch_size 1 (")


def test_processes_share_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cns_lightning.doctor.machine.free_in_main_memory", lambda: 24e9)
    assert memory_findings(stable_diffusion(), SETTINGS, "cpu", 1)[0].severity is Severity.NOTE
    assert memory_findings(stable_diffusion(), SETTINGS, "cpu", 3)[0].severity is Severity.WARNING
    monkeypatch.setattr("cns_lightning.doctor.machine.gpu_memory", lambda is_free: 80e9)
    assert len(memory_findings(stable_diffusion(), SETTINGS, "gpu", 1)) == 1
    assert "reading the base model takes 25.6 GB" in memory_findings(stable_diffusion(), SETTINGS, "gpu", 6)[1].problem


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = stable_diffusion()
    needs = disk_needs(parts, SETTINGS)
    assert needs is not None
    first, most = needs
    # A registry's file of Stable Diffusion has about 4.6 MB, and a checkpoint 16 MB.
    assert 15e6 < first < 30e6
    assert most > 2 * first
    more = disk_needs(parts, replace(SETTINGS, fuses=True, snapshots=3))
    assert more is not None
    assert more[1] > most + 2 * 4 * 19e6
    run = tmp_path / "new" / "run"
    for free, severity in ((most + 1, Severity.NOTE), (first + 1, Severity.WARNING), (first - 1, Severity.STOPS)):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr("shutil.disk_usage", lambda place, usage=usage: usage)
        (found,) = disk_findings(parts, SETTINGS, run)
        assert found.severity is severity
    assert not run.exists()
    (tmp_path / "file").touch()
    (found,) = disk_findings(None, SETTINGS, tmp_path / "file" / "run")
    assert found.severity is Severity.STOPS


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("answer", "severity", "words"),
    [
        ("echo 'Slurmctld(primary) at head is UP'", Severity.NOTE, "answers"),
        ("echo 'Slurmctld(primary) at head is DOWN'", Severity.WARNING, "is DOWN"),
        ("echo 'scontrol: error: no configuration' >&2; exit 1", Severity.WARNING, "no configuration"),
        ("exec sleep 5", Severity.WARNING, "does not answer"),
    ],
)
def test_slurm(answer: str, severity: Severity, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setattr("cns_lightning.doctor.machine.PATIENCE", 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert "no sbatch" in slurm_findings()[0].problem
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "sbatch", "exit 0")
    program(tmp_path, "scontrol", answer)
    (found,) = slurm_findings()
    assert found.severity is severity
    assert words in found.problem
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm_findings() == []


def test_a_configuration_for_slurm() -> None:
    assert is_for_slurm([Path("configs/base/sd15.yaml"), Path("configs/hardware/slurm.yaml")])
    assert not is_for_slurm([Path("slurm/one_gpu.yaml")])
