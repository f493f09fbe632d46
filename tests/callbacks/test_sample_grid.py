"""What a run draws while it goes on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from cns_lightning.callbacks.sample_grid import send
from cns_lightning.cli.main import main
from cns_lightning.diffusion.sheets import pictures_of
from tests.runs.learning import arguments, learn, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt


@pytest.mark.parametrize("method", ["cns", "mix_of_show"])
def test_a_running_stage_is_drawn_every_few_steps_and_learns_the_same(
    method: str, tiny_base_model: Path, tmp_path: Path
) -> None:
    plain = learn(method, tiny_base_model, tmp_path / "plain")
    watched = learn(method, tiny_base_model, tmp_path / "watched", "--samples.every_steps", "1")
    for path in sorted((plain / "registry").glob("*.safetensors")):
        assert path.read_bytes() == (watched / "registry" / path.name).read_bytes(), path.name
    drawn = pictures_of(watched / "samples" / "stage-1-steps.png")
    assert list(drawn) == ["base model", "step 0", "step 1", "step 2"]
    assert [len(row) for row in drawn.values()] == [2] * 4
    after = pictures_of(watched / "samples" / "stage-1.png")["<new2> dog"]
    page = (watched / "report.html").read_text("utf-8")
    assert all(f"&lt;new2&gt;, {label}" in page for label in drawn)
    assert [picture.tobytes() for picture in drawn["step 2"]] == [picture.tobytes() for picture in after]


def test_a_run_that_was_stopped_has_the_sheet_of_one_that_was_not(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = write_sequence(tmp_path, ["cat"])
    whole, other = (
        arguments(tiny_base_model, sequence, tmp_path / name, CALLBACK, "--samples.every_steps", "2", steps=5)
        for name in "ab"
    )
    assert main(whole) == 0
    monkeypatch.setattr(StopAt, "step", 3)
    with pytest.raises(SystemExit):
        main([*other, "--checkpoint.every_steps", "1"])
    monkeypatch.setattr(StopAt, "step", None)
    assert main([*other, "--checkpoint.every_steps", "1"]) == 0
    sheets = [pictures_of(tmp_path / name / "samples" / "stage-0-steps.png") for name in "ab"]
    assert list(sheets[0]) == ["base model", "step 0", "step 2", "step 4", "step 5"]
    assert sheets[0] == sheets[1]


class Board(TensorBoardLogger):
    """A logger that keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    @property
    def experiment(self) -> Any:
        """Returns something that takes pictures."""
        return SimpleNamespace(add_image=lambda *given, dataformats: self.sent.append((*given, dataformats)))


def test_sheets_go_to_loggers_that_take_pictures() -> None:
    board, picture = Board(), Image.new("RGB", (3, 2), "red")
    send(picture, "samples", SimpleNamespace(loggers=[object(), board], global_step=7))  # type: ignore[arg-type]
    ((name, pixels, step, layout),) = board.sent
    assert (name, step, layout) == ("samples", 7, "HWC")
    assert numpy.array_equal(pixels, numpy.asarray(picture))
