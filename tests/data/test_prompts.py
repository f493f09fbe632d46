"""Which words stand with pictures in training, and with samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import yaml

from cns_lightning import load_pipeline
from cns_lightning.cli.main import main
from cns_lightning.data.images import read_photos
from cns_lightning.data.module import ConceptDataModule
from cns_lightning.data.stage_latents import RunContext
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.sampling import generate_pairs
from cns_lightning.diffusion.sheets import pictures_of
from cns_lightning.doctor.pictures import content_findings, folder_findings
from cns_lightning.sequences.concept_settings import ConceptSettings
from tests.runs.learning import arguments, write_sequence

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
    own = replace(style, settings=ConceptSettings(prompt="a <new1> cat"))
    assert data.sample_prompts(own) == ["a <new1> cat"]


def test_doctor_says_where_a_style_is_learned_without_captions(tmp_path: Path) -> None:
    (style,) = _style(tmp_path, []).sequence.concepts
    assert [found.problem for found in folder_findings([style])] == ["1 of 3 pictures have a caption beside them"]
    bare, captions = folder_findings([style], with_captions=False)
    assert "<new1> is a style that is learned without captions" in bare.problem
    assert bare.remedy.startswith("Take data.captions false out.")
    assert captions.remedy.startswith("Not read (data.captions is false)")
    beside = tmp_path / "cat0" / "1.txt"
    beside.write_bytes(b"\xff")
    assert [found.problem for found in content_findings([style])] == ["cannot be read as UTF-8 text"]
    assert content_findings([style], with_captions=False) == []
    assert len(read_photos(style)) == 3
    beside.unlink()
    assert '"a boat in the style of <new1> cat"' in folder_findings([style])[0].remedy


def test_a_sheet_shows_a_style_on_its_prompts_in_turn(tiny_base_model: Path, tmp_path: Path) -> None:
    sequence, run = _style(tmp_path / "a", ASKED).path, tmp_path / "run"
    more = ("--samples.pictures", "3", "--samples.guidance", "4", "--samples.every_steps", "2")
    assert main(arguments(tiny_base_model, sequence, run, *more, steps=2)) == 0
    asked = [(ASKED[0], 0), (ASKED[1], 1), (ASKED[0], 2)]
    plain = [("a red boat", 0), ("a dog", 1), ("a red boat", 2)]
    steps = pictures_of(run / "samples" / "stage-0-steps.png")
    for pipeline, pairs, row in (
        (load_pipeline(run), asked, pictures_of(run / "samples" / "stage-0.png")["<new1> cat"]),
        (load_pipeline(run), asked, steps["step 2"]),
        (BaseModel.load(str(tiny_base_model)).pipeline(), plain, steps["base model"]),
    ):
        drawn = generate_pairs(pipeline, pairs, 2, 4.0)
        assert [picture.tobytes() for picture in drawn] == [picture.tobytes() for picture in row]
