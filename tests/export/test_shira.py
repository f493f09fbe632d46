"""``shira``: peft's adapter of the moved weights alone."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cns_lightning.cli.export import run as command
from cns_lightning.diffusion.base_source import BaseSource
from cns_lightning.errors import UserError
from cns_lightning.export.shira import sparse_adapter
from tests.export.runs import export, pretrained_unet, trained_weights, weights_of, write_run


def read(folder: Path) -> dict[str, Tensor]:
    """Returns the adapter's dense deltas by parameter name, by the rules of the format alone."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    assert config["peft_type"] == "SHIRA"
    tensors = load_file(folder / "adapter_model.safetensors")
    found: dict[str, Tensor] = {}
    for module in config["target_modules"]:
        values = tensors.pop(f"base_model.model.{module}.shira_weight")
        rows, columns = tensors.pop(f"base_model.model.{module}.shira_indices")
        assert rows.dtype == torch.int32
        assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(values), "no place twice"
        found[f"{module}.weight"] = torch.sparse_coo_tensor(torch.stack([rows, columns]), values, check_invariants=True)
    assert not tensors
    return found


def test_read_by_the_rules_it_is_the_model_of_the_run(any_run: Path, tmp_path: Path) -> None:
    export(any_run, "shira", tmp_path / "out")
    expected = trained_weights(any_run)
    unet = pretrained_unet(any_run)
    parameters = dict(unet.named_parameters())
    rank = json.loads((tmp_path / "out" / "adapter_config.json").read_text("utf-8"))["r"]
    with torch.no_grad():
        for name, delta in read(tmp_path / "out").items():
            assert delta._nnz() == rank * sum(parameters[name].shape)
            rows, columns = delta._indices()
            parameters[name][rows, columns] += delta._values()
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(unet).items())


def test_peft_merges_it_to_the_model_of_the_run(any_run: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", minversion="0.17", reason="peft is not installed")
    export(any_run, "shira", tmp_path / "out")
    expected = trained_weights(any_run)
    base = pretrained_unet(any_run)
    state = torch.get_rng_state()
    merged = peft.PeftModel.from_pretrained(base, str(tmp_path / "out")).merge_and_unload()
    assert torch.equal(state, torch.get_rng_state()), "masks that are thrown away cost no random numbers"
    assert type(merged) is type(base)
    found = weights_of(merged)
    assert found.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())


def test_the_python_of_the_card_runs(
    run: Path, tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft", minversion="0.17", reason="peft is not installed")
    export(run, "shira", tmp_path / "out")
    code = card_of(tmp_path / "out")
    assert f'from_pretrained("{tiny_base_model.name}")  # where it is' in code
    monkeypatch.chdir(tmp_path / "out")
    Path(tiny_base_model.name).symlink_to(tiny_base_model)
    unet = run_card(code).unet
    expected = trained_weights(run)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights_of(unet).items())


def run_card(code: str) -> Any:
    """Runs the Python of a card as it stands, with one step of the sampler, and returns the pipeline."""
    names: dict[str, Any] = {}
    exec(code.replace('cat")', 'cat", num_inference_steps=1)'), names)
    assert "<new2>" in names["pipe"].tokenizer.get_vocab()
    return names["pipe"]


def card_of(folder: Path) -> str:
    """Returns the Python of a card."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    return code


def test_the_python_of_the_card_opens_the_miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft", minversion="0.17", reason="peft is not installed")
    run = write_run(tmp_path / "run", BaseSource("miniature"))
    export(run, "shira", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    expected = trained_weights(run)
    found = weights_of(run_card(card_of(Path())).unet)
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())


def test_rank_is_the_lowest_with_room_for_every_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = {
        "a.weight": (torch.rand(40, 20, generator=generator) < 0.1).float(),
        "b.weight": (torch.rand(30, 50, generator=generator) < 0.05).float() * 3,
        "c.weight": torch.zeros(10, 10),
    }
    adapter = sparse_adapter(delta)
    counts = {name: int(each.count_nonzero()) for name, each in delta.items()}
    assert adapter.rank == max(math.ceil(counts["a.weight"] / 60), math.ceil(counts["b.weight"] / 80))
    assert adapter.modules == ("a", "b")
    assert adapter.moved == counts["a.weight"] + counts["b.weight"]
    for name in ("a", "b"):
        values = adapter.tensors[f"base_model.model.{name}.shira_weight"]
        assert int(values.count_nonzero()) == counts[f"{name}.weight"]


def test_dense_deltas_are_refused(tiny_base_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"100% of the weights move.*--format webui"):
        sparse_adapter({"a.weight": torch.ones(3, 4), "b.weight": torch.ones(30, 40)})
    run = write_run(tmp_path / "dense", tiny_base_model, share=2)
    with pytest.raises(UserError, match="SHiRA is for few"):
        command(["--run", str(run), "--format", "shira", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_half_precision_values(run: Path, tmp_path: Path) -> None:
    export(run, "shira", tmp_path / "out", "--dtype", "float16")
    before, after = weights_of(pretrained_unet(run)), trained_weights(run)
    for name, delta in read(tmp_path / "out").items():
        assert delta.dtype == torch.float16
        torch.testing.assert_close(delta.to_dense().float(), after[name] - before[name], atol=2e-4, rtol=0)
