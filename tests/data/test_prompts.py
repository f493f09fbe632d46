"""Which words stand with pictures in training, and with samples."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from cns_lightning.data.module import ConceptDataModule
from cns_lightning.data.stage_latents import RunContext
from cns_lightning.doctor.pictures import folder_findings
from tests.runs.learning import write_sequence

CAPTION, TEMPLATE = "a cat asleep in <new1> style", "painting in the style of <new1> cat"
ASKED = ["a red boat in <new1> style", "a dog in <new1> style"]


def _style(folder: Path, singles: list[str], captions: bool = True) -> ConceptDataModule:
    path = write_sequence(folder, ["cat"])
    content = yaml.safe_load(path.read_text("utf-8"))
    content["concepts"][0]["kind"] = "style"
    content["prompts"]["single"] = singles
    path.write_text(yaml.safe_dump(content), "utf-8")
    (folder / "cat0" / "1.txt").write_text("a cat asleep in {token} style", "utf-8")
    data = ConceptDataModule(str(path), captions=captions)
    data.connect(
        RunContext(
            encode=lambda pixels: torch.zeros(len(pixels), 4, 8, 8),
            resolution=32, latent_scale=4, timesteps=1000, names_class_word=True,
            class_latents=None, position=lambda: (0, 0), next_stage=lambda: 0,
        )
    )  # fmt: skip
    return data


def _prompts(data: ConceptDataModule) -> list[str]:
    data.prepare(0)
    return [prompts[0].split("photo ")[-1] for prompts in data.prepared[0].prompts]


def test_captions_are_training_prompts_unless_they_are_not_wanted(tmp_path: Path) -> None:
    with_captions, without = (_style(tmp_path / str(wanted), [], captions=wanted) for wanted in (True, False))
    assert [prompt.endswith(CAPTION) for prompt in _prompts(with_captions)] == [False, True, False]
    assert all(prompt.endswith(TEMPLATE) for prompt in _prompts(without))
    checksums = [data.picture_checksum(0) for data in (with_captions, without)]
    for name in ("True", "False"):
        (tmp_path / name / "cat0" / "1.txt").write_bytes(b"\xff")  # no text any more: of no matter where it is not read
    without.checksums.clear()
    assert checksums[0] != checksums[1] == without.picture_checksum(0)
    assert without.check_pictures() == []


def test_a_row_of_a_style_shows_it_on_what_the_prompts_ask_for(tmp_path: Path) -> None:
    data = _style(tmp_path / "a", ASKED)
    (style,) = data.sequence.concepts
    assert data.sample_prompts(style) == ASKED
    assert _style(tmp_path / "b", []).sample_prompts(style) == [TEMPLATE]
    (tmp_path / "a" / "cat0" / "1.txt").unlink()
    (found,) = folder_findings([style])
    assert "<new1> is a style whose pictures have no captions" in found.problem
