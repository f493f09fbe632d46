"""Rows of figures: a loss on fixed noise that moves with what is learned, and with nothing else."""

from pathlib import Path

from cns_lightning.runs.metrics import read_rows
from tests.runs.learning import learn

FIXED = ("--metrics.every_steps", "1", "--metrics.fixed_noise_every_steps", "1", "--samples.pictures", "0")


def _losses(run: Path) -> dict[str, list[str]]:
    rows = read_rows(run / "metrics.csv")
    assert [row["stage_step"] for row in rows] == ["0", "1", "2"] * 2
    assert [bool(row["loss"]) for row in rows] == [False, True, True] * 2
    return {
        token: [row["fixed_noise_loss"] for row in rows if row["concept"] == token] for token in ("<new1>", "<new2>")
    }


def test_a_loss_on_fixed_noise_stands_still_where_nothing_is_learned(tiny_base_model: Path, tmp_path: Path) -> None:
    still = ("--model.method.learning_rate", "0", "--model.method.token_learning_rate", "0")
    for values in _losses(learn("cns", tiny_base_model, tmp_path / "still", *FIXED, *still)).values():
        assert len(set(values)) == 1
        assert float(values[0]) > 0
    for values in _losses(learn("cns", tiny_base_model, tmp_path / "moving", *FIXED)).values():
        assert len(set(values)) == 3


def test_it_can_be_left_out(tiny_base_model: Path, tmp_path: Path) -> None:
    run = learn("cns", tiny_base_model, tmp_path, "--metrics.fixed_noise_every_steps", "0", "--samples.pictures", "0")
    rows = read_rows(run / "metrics.csv")
    assert rows
    assert not any(row["fixed_noise_loss"] for row in rows)
