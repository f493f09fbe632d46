"""``lora``: the best low-rank cut of every layer, and the truth about what it leaves out."""

from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.export.lora import low_rank
from cns_lightning.registry.registry import NeuronRegistry
from tests.export.runs import export, header, pretrained_unet, read_into, trained_weights, weights_of


def test_factors_are_the_best_of_their_rank() -> None:
    matrix = torch.randn(12, 7, generator=torch.Generator().manual_seed(0))
    left, values, right = numpy.linalg.svd(matrix.double().numpy(), full_matrices=False)
    for rank in (1, 3, 7):
        found = low_rank(matrix, rank)
        best = (left[:, :rank] * values[:rank]) @ right[:rank]
        assert numpy.allclose((found.up @ found.down).double().numpy(), best, atol=1e-5)
        assert found.left_out == pytest.approx((values[rank:] ** 2).sum() / (values**2).sum(), abs=1e-6)
        lost = float(((matrix - found.up @ found.down) ** 2).sum() / (matrix**2).sum())
        assert found.left_out == pytest.approx(lost, abs=1e-5)
    assert low_rank(matrix, 100).rank == 7


def test_rank_that_keeps_a_share() -> None:
    found = low_rank(torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0])), 1)
    assert [found.rank_for(share) for share in (0.5, 9 / 14, 0.65, 0.95, 1.0)] == [1, 1, 2, 3, 3]
    assert found.left_out == pytest.approx(5 / 14)
    zeros = low_rank(torch.zeros(3, 4), 2)
    assert (zeros.left_out, zeros.rank_for(0.95)) == (0.0, 0)
    assert torch.equal(zeros.up @ zeros.down, torch.zeros(3, 4))


def lost_share(run: Path, unet: torch.nn.Module) -> float:
    """Returns the share of the delta's energy that a UNet lacks, and checks that no other weight moved."""
    expected = trained_weights(run)
    before = weights_of(pretrained_unet(run))
    lost = whole = 0.0
    for name, weight in weights_of(unet).items():
        if torch.equal(expected[name], before[name]):
            assert torch.equal(weight, before[name]), name
        lost += float(((expected[name] - weight) ** 2).sum())
        whole += float(((expected[name] - before[name]) ** 2).sum())
    return lost / whole


def test_what_is_said_to_be_left_out_is_left_out(
    any_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(any_run, "lora", tmp_path / "out", "--rank", "3", "--dtype", "float32")
    said = capsys.readouterr().out
    file = tmp_path / "out" / f"{any_run.name}.safetensors"
    unet = pretrained_unet(any_run)
    placed = read_into(unet, load_file(file))
    share = float(said.split("rank 3 leaves out ")[1].split("%")[0]) / 100
    assert lost_share(any_run, unet) == pytest.approx(share, abs=6e-4)
    assert 0.05 < share < 0.95
    rows = [line for line in said.splitlines() if ".attn2.to_" in line]
    assert len(rows) == len(placed)
    assert all("%" in row for row in rows)
    needed = int(said.split("energy; rank ")[1].split()[0])
    export(any_run, "lora", tmp_path / "more", "--rank", str(needed), "--dtype", "float32")
    unet = pretrained_unet(any_run)
    read_into(unet, load_file(tmp_path / "more" / f"{any_run.name}.safetensors"))
    assert lost_share(any_run, unet) <= 0.05
    assert said.splitlines()[-1].startswith("next: copy ")
    assert "leaves out" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_full_rank_is_the_model_of_the_run(run: Path, tmp_path: Path) -> None:
    export(run, "lora", tmp_path / "out", "--rank", "999", "--dtype", "float32")
    unet = pretrained_unet(run)
    read_into(unet, load_file(tmp_path / "out" / "family.safetensors"))
    assert lost_share(run, unet) < 1e-10
    found = header(tmp_path / "out" / "family.safetensors")
    assert (found["ss_network_module"], found["ss_network_dim"]) == ("networks.lora", "999")


def test_a_concept_a_file(run: Path, tmp_path: Path) -> None:
    export(run, "lora", tmp_path / "out", "--rank", "999", "--dtype", "float32", "--per-concept")
    unet = pretrained_unet(run)
    for stem in ("new1", "new2"):
        read_into(unet, load_file(tmp_path / "out" / f"family-{stem}.safetensors"))
    assert lost_share(run, unet) < 1e-10


def test_diffusers_reads_it_through_peft(any_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", minversion="0.17", reason="peft is not installed")
    export(any_run, "lora", tmp_path / "out", "--rank", "4", "--dtype", "float32")
    file = tmp_path / "out" / f"{any_run.name}.safetensors"
    source = NeuronRegistry.load(any_run / "registry").base_model
    unet = pretrained_unet(any_run)
    read_into(unet, load_file(file))
    expected = weights_of(unet)
    pipe = BaseModel.load(source).pipeline()
    pipe.load_lora_weights(str(file))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    found = weights_of(pipe.unet)
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=1e-6)
