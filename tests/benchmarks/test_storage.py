"""`benchmarks.storage` on small matrices: both formats give the same weights, and the document names every figure."""

from pathlib import Path

import pytest
import torch

from benchmarks import storage
from cns_lightning.neurons.mask import NeuronMask


def small_weights() -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return {f"{number}.weight": torch.randn(64, 96, generator=drawn) for number in range(4)}


def test_figures_of_a_small_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "random_weights", small_weights)
    monkeypatch.setattr(storage, "miniature_mask", lambda: NeuronMask.empty({"w": (8, 8)}))
    found = storage.measure(12, tmp_path, 0.5)
    files = sorted((tmp_path / "large").glob("*-c*.safetensors"))
    assert len(files) == found["concepts"] == 12
    assert found["bytes"] == sum(path.stat().st_size for path in files) / 12
    assert found["version_2_bytes"] == sum(path.stat().st_size for path in (tmp_path / "version_2").glob("0*")) / 12
    assert abs(found["density"] - storage.DENSITY) < 0.02
    forms = found["masks"]["uneven features (0.5)"]["forms"]
    assert forms["one bit per entry (format 2)"]["bytes"] == 4 * 64 * 96 / 8
    assert 0 < forms["entropy of the columns"]["bytes"] < forms["one bit per entry (format 2)"]["bytes"]
    text = storage.document(found)
    assert all(f"| {name} |" in text for name in forms)
    assert f"| a concept, MB | {found['bytes'] / 1e6:.3f} |" in text
