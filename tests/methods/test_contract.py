"""What every method promises, whatever it is: one suite over configs/methods."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.methods.discovery import method_configs
from cns_lightning.pipeline import load_pipeline
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from tests.runs.learning import arguments, learn, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt

METHODS = list(method_configs())


@pytest.mark.parametrize("method", METHODS)
def test_stage_moves_only_what_the_method_keeps(method: str, tiny_base_model: Path, tmp_path: Path) -> None:
    run = learn(method, tiny_base_model, tmp_path)
    base, learned = BaseModel.load(str(tiny_base_model)), load_pipeline(run)
    earlier = load_pipeline(run, upto="<new1>")
    kind, settings = RunConfig.read(RunFolder(run)).method()
    movable = kind(**settings).projections(base)
    kept = dict(base.unet.named_parameters())
    kept |= {f"text_encoder.{name}": weight for name, weight in base.text_encoders[0].named_parameters()}
    now = dict(learned.unet.named_parameters())  # type: ignore[attr-defined]
    now |= {f"text_encoder.{name}": weight for name, weight in learned.text_encoder.named_parameters()}  # type: ignore[attr-defined]
    for name, weight in now.items():
        if name not in movable and "token_embedding" not in name:
            assert torch.equal(weight, kept[name]), name
    rows = base.vocabulary_sizes[0]
    pipes: list[Any] = [learned, earlier]
    tables = [pipe.text_encoder.get_input_embeddings().weight for pipe in pipes]
    assert torch.equal(tables[0][:rows], base.embedding_table(0).weight)
    assert torch.equal(tables[0][rows], tables[1][rows]), "the second stage moved the first concept's token"


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_runs(method: str, tiny_base_model: Path, tmp_path: Path) -> None:
    run = learn(method, tiny_base_model, tmp_path, "--trainer.precision", "bf16-mixed")
    assert (run / "samples" / "stage-1.png").exists()


@pytest.mark.parametrize("method", METHODS)
def test_appended_concept_interrupted_ends_as_learned_in_one_go(
    method: str, tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat", "dog"])
    whole, other = (arguments(tiny_base_model, sequence, tmp_path / name, CALLBACK, method=method) for name in "ab")
    assert main(whole) == 0
    content = sequence.read_text("utf-8")
    both = yaml.safe_load(content)
    sequence.write_text(yaml.safe_dump({**both, "concepts": both["concepts"][:1]}), "utf-8")
    assert main(other) == 0
    sequence.write_text(content, "utf-8")
    monkeypatch.setattr(StopAt, "step", 5)
    with pytest.raises(SystemExit):
        main(other)
    monkeypatch.setattr(StopAt, "step", None)
    assert main(other) == 0
    for name in ("registry/registry.json", "metrics.csv", "samples/stage-1.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
