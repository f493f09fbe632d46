"""Orthogonal Adaptation: directions are orthonormal, and apart where they are disjoint."""

from pathlib import Path

import pytest
import torch

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.projections import read_weights
from cns_lightning.errors import UserError
from cns_lightning.methods.orthogonal_adaptation import OrthogonalAdaptation, chosen_columns, orthogonal_basis
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import arguments, learn, write_sequence

FAST = ["--model.method.learning_rate", "0.05"]


@pytest.mark.parametrize("width", [8, 96])
def test_directions_are_orthonormal_and_the_same_for_all(width: int) -> None:
    basis = orthogonal_basis(width, seed=3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(width), rtol=0, atol=1e-5)
    assert torch.equal(basis, orthogonal_basis(width, seed=3))
    assert not torch.allclose(basis, orthogonal_basis(width, seed=4))


def test_disjoint_directions_do_not_answer_to_each_other() -> None:
    basis = orthogonal_basis(64, seed=0)
    first = chosen_columns(64, 20, 0, "<new1>")
    second = chosen_columns(64, 20, 0, "<new2>", [first])
    assert not set(first.tolist()) & set(second.tolist())
    deltas = [torch.randn(10, 20) @ basis[:, columns].T for columns in (first, second)]
    assert float((deltas[0] @ deltas[1].T).abs().max()) < 1e-4
    shared = basis[:, chosen_columns(64, 20, 0, "<new2>")]
    assert float((deltas[0] @ shared).abs().max()) > 0.1
    with pytest.raises(UserError, match="is 30, and of 64 directions 24 are left for <new3>"):
        chosen_columns(64, 30, 0, "<new3>", [first, second])


@pytest.mark.parametrize("columns", ["random", "disjoint"])
def test_a_run_adds_up_shares_of_its_concepts(columns: str, tiny_base_model: Path, tmp_path: Path) -> None:
    run = learn("orthogonal_adaptation", tiny_base_model, tmp_path, *FAST, "--model.method.columns", columns)
    base, records = BaseModel.load(str(tiny_base_model)), list(NeuronRegistry.load(run / "registry").records)
    method = OrthogonalAdaptation()
    expected = read_weights(method.projections(base))
    for record in records:
        assert all(len(down) == 0 for _, down in record.factors.values()), "directions are drawn again, not kept"
        for name, (up, down) in record.factors.items():
            width = down.shape[1]
            directions = orthogonal_basis(width, 0)[:, record.extra[f"columns.{width}"]]
            expected[name] += 0.6 * up.float() @ directions.T
    now = dict(load_pipeline(run).unet.named_parameters())  # type: ignore[attr-defined]
    for name, weight in expected.items():
        torch.testing.assert_close(now[name], weight)
    taken = [set(record.extra["columns.8"].tolist()) for record in records]
    assert columns == "random" or not taken[0] & taken[1]


def test_too_large_a_rank_is_refused(tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat"])
    given = arguments(tiny_base_model, sequence, tmp_path / "run", method="orthogonal_adaptation")
    assert main([*given, "--model.method.rank", "20"]) == 2
    assert "model.method.rank: is 20, and of 8 directions 8 are left for <new1>" in capsys.readouterr().err
