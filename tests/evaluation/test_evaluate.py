"""`test` on a finished run of the tiny model: figures, pictures that are drawn once, and pictures that are stale."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from cns_lightning.cli.main import main
from cns_lightning.cli.test import as_text, device_of
from cns_lightning.data.images import read_concept_pictures
from cns_lightning.errors import UserError
from cns_lightning.evaluation.cmmd import cmmd
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.evaluation.settings import EvaluationSettings
from cns_lightning.sequences.sequence import Sequence
from cns_lightning.storage import fingerprint, read_json
from tests.runs.learning import arguments, write_sequence

PROMPTS = {
    "single": ["a photo of a <new1> cat", "a photo of a <new2> dog", "a <new1> cat in the snow"],
    "double": ["a <new1> cat and a <new2> dog"],
    "triple": [],
}


@dataclass(frozen=True)
class Scored:
    """A scored run: its folder, its scores, the judge, the judge's vectors of the photos by concept."""

    run: Path
    scores: dict[str, Any]
    judge: ClipEncoder
    references: list[torch.Tensor]

    @property
    def images(self) -> Path:
        """The folder of the drawn pictures."""
        return self.run / "evaluation" / "images"

    def drawn(self, *names: str) -> torch.Tensor:
        """Returns the judge's vectors of drawn pictures."""
        return self.judge.images([Image.open(self.images / f"{name}.png") for name in names])


@pytest.fixture(scope="module")
def finished(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Returns base model, sequence file and run folder of a finished run of two concepts."""
    folder = tmp_path_factory.mktemp("evaluation")
    sequence = write_sequence(folder, ["cat", "dog"])
    content = yaml.safe_load(sequence.read_text("utf-8"))
    sequence.write_text(yaml.safe_dump({**content, "prompts": PROMPTS}), "utf-8")
    more = ("--samples.base_prompts", '["a photo of a house", "a boat"]')
    more += ("--data.templates.animal", "a picture of a {token} {class_word}")
    assert main(arguments(tiny_base_model, sequence, folder / "run", *more)) == 0
    return tiny_base_model, sequence, folder / "run"


@pytest.fixture
def run(finished: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    """Returns a copy of the finished run."""
    return Path(shutil.copytree(finished[2], tmp_path / "run"))


def test_likeness_within_a_class_is_said() -> None:
    scores = {"groups": {}, "kinds": {}, "kinds_of_several": {}, "concepts": {}}
    said = as_text({**scores, "same_class": {"<new4>": {"<new4>": 0.58, "<new1>": 0.67}}})
    assert "pictures of <new4>: 0.580 like its own, 0.670 like those of <new1>" in said


def command(run: Path, judge: Path, *more: str) -> list[str]:
    """Returns the command line of a small evaluation."""
    few = ("--pictures", "2", "--look-alikes", "2")
    return ["test", "--run", str(run), "--judge", str(judge), "--device", "cpu", *few, *more]


def times(run: Path) -> dict[str, int]:
    """Returns when each picture was written."""
    images = run / "evaluation" / "images"
    return {str(path.relative_to(images)): path.stat().st_mtime_ns for path in images.rglob("*.png")}


@pytest.fixture(scope="module")
def scored(finished: tuple[Path, Path, Path], tiny_judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """Returns a scored copy of the finished run."""
    run = Path(shutil.copytree(finished[2], tmp_path_factory.mktemp("scored") / "run"))
    assert main(command(run, tiny_judge)) == 0
    judge = ClipEncoder(tiny_judge)
    references = [
        judge.images([picture.image for picture in read_concept_pictures(each)])
        for each in Sequence.read(finished[1]).concepts
    ]
    return Scored(run, read_json(run / "evaluation" / "scores.json"), judge, references)


def test_figures_are_those_of_the_pictures_on_disk(scored: Scored) -> None:
    scores, references, drawn = scored.scores, scored.references, scored.drawn
    first = drawn(*(f"stage-01/single-0{number}-seed-{seed}" for number in (0, 2) for seed in (0, 1)))
    assert scores["concepts"]["<new1>"]["clip_i"] == pytest.approx(float((first @ references[0].T).mean()), abs=1e-6)
    both = drawn("stage-01/double-00-seed-0", "stage-01/double-00-seed-1")
    expected = torch.cat([both @ each.T for each in references], dim=1).mean()
    assert scores["groups"]["double"]["clip_i"] == pytest.approx(float(expected), abs=1e-6)
    text = scored.judge.texts(["a cat and a dog"])
    assert scores["groups"]["double"]["clip_t"] == pytest.approx(float((both @ text.T).mean()), abs=1e-6)
    then = drawn("stage-00/single-00-seed-0", "stage-00/single-02-seed-0")
    assert scores["matrix"][0] == pytest.approx([float((then @ references[0].T).mean())], abs=1e-6)
    now = drawn("stage-01/single-00-seed-0", "stage-01/single-02-seed-0")
    assert scores["matrix"][1][0] == pytest.approx(float((now @ references[0].T).mean()), abs=1e-6)
    assert scores["forgetting_from_learned"] == pytest.approx(scores["matrix"][0][0] - scores["matrix"][1][0])
    same = drawn(*(f"base/untouched-0{number}-seed-{seed}" for number in (0, 1) for seed in (0, 1)))
    later = drawn(*(f"stage-01/untouched-0{number}-seed-{seed}" for number in (0, 1) for seed in (0, 1)))
    assert scores["drift"]["likeness_to_base"] == pytest.approx(float((same * later).sum(1).mean()), abs=1e-6)
    assert scores["drift"]["cmmd"] == pytest.approx(cmmd(same, later), abs=1e-4)


def test_costs_and_what_scored_them_are_said(scored: Scored) -> None:
    run, costs, how, judge = scored.run, scored.scores["costs"], scored.scores["scored_with"], scored.judge
    sizes = [path.stat().st_size for path in (run / "registry").glob("*-new*.safetensors")]
    assert costs["kilobytes"] == pytest.approx(sum(sizes) / len(sizes) / 1e3)
    stages = read_json(run / "timings.json")["stages"].values()
    spent = [stage["seconds"]["selection"] + stage["seconds"]["training"] for stage in stages]
    assert costs["training_seconds"] == pytest.approx(sum(spent) / len(spent))
    assert how["judge_sha256"] == fingerprint(judge.model.state_dict())
    assert how["processor"]["image_mean"] == pytest.approx(list(judge.processor.image_mean))
    assert how["processor"]["crop_size"] == {side: judge.processor.crop_size[side] for side in ("height", "width")}
    assert how["versions"]["torch"] == torch.__version__
    assert "dino" not in how


def test_identity_is_that_of_the_nearest_photo_or_look_alike(scored: Scored) -> None:
    scores, references, drawn = scored.scores, scored.references, scored.drawn
    first = drawn(*(f"stage-01/single-0{number}-seed-{seed}" for number in (0, 2) for seed in (0, 1)))
    second = drawn("stage-01/single-01-seed-0", "stage-01/single-01-seed-1")
    alikes = [drawn(*(f"look-alikes/lookalike-0{number}-seed-{seed}" for seed in (0, 1))) for number in (0, 1)]
    gallery = torch.cat([*references, *alikes])
    labels = [*["<new1>"] * 3, *["<new2>"] * 3, *["any cat"] * 2, *["any dog"] * 2]
    nearest = {
        token: [labels[int(each)] for each in (queries @ gallery.T).argmax(1)]
        for token, queries in (("<new1>", first), ("<new2>", second))
    }
    identity = scores["identity"]
    assert identity["confusion"] == {
        token: {label: listed.count(label) / len(listed) for label in dict.fromkeys(labels)}
        for token, listed in nearest.items()
    }
    hits = {token: listed.count(token) for token, listed in nearest.items()}
    assert identity["top1"] == pytest.approx(sum(hits.values()) / 6)
    assert {token: row["top1"] for token, row in identity["concepts"].items()} == pytest.approx(
        {"<new1>": hits["<new1>"] / 4, "<new2>": hits["<new2>"] / 2}
    )
    said = as_text(scores)
    assert "CLIP-I" in said
    assert f"identity of <new2>: top-1 {hits['<new2>'] / 2:.3f}" in said
    # After the first stage the second concept and its class are not in the gallery.
    then = drawn("stage-00/single-00-seed-0", "stage-00/single-02-seed-0")
    early = (then @ torch.cat([references[0], alikes[0]]).T).argmax(1)
    assert [list(row["concepts"]) for row in scores["identity_by_stage"]] == [["<new1>"], ["<new1>", "<new2>"]]
    assert scores["identity_by_stage"][0]["top1"] == pytest.approx(float((early < 3).float().mean()))
    with Image.open(scored.images / "look-alikes" / "lookalike-01-seed-0.png") as alike:
        assert alike.info["prompt"] == "a picture of a dog"


def test_what_is_drawn_is_not_drawn_again_and_shares_make_the_whole(run: Path, tiny_judge: Path) -> None:
    for share in ("0/3", "2/3"):
        assert main(command(run, tiny_judge, "--share", share)) == 0
    assert not (run / "evaluation" / "scores.json").exists()
    before = times(run)
    assert main(command(run, tiny_judge)) == 0
    after = times(run)
    # 2 pictures of 4 prompts and of 2 that name no concept, the latter also of the base model, 1 of 2 after stage 0,
    # 2 of each of 2 classes.
    assert len(after) == 2 * 4 + 2 * 2 + 2 * 2 + 2 + 2 * 2
    assert len(before) < len(after)
    assert all(after[name] == time for name, time in before.items())
    images = run / "evaluation" / "images"
    (images / "stage-01" / "single-00-seed-1.png").write_bytes(b"cut short")
    shutil.copy(images / "stage-01" / "single-00-seed-0.png", images / "stage-01" / "single-01-seed-0.png")
    scores = read_json(run / "evaluation" / "scores.json")
    assert main(command(run, tiny_judge)) == 0
    changed = {name for name, time in times(run).items() if time != after[name]}
    assert changed == {"stage-01/single-00-seed-1.png", "stage-01/single-01-seed-0.png"}
    again = read_json(run / "evaluation" / "scores.json")
    assert again["concepts"] == scores["concepts"]
    # More pictures for the matrix are none for the other figures.
    assert main(command(run, tiny_judge, "--matrix-pictures", "3")) == 0
    more = read_json(run / "evaluation" / "scores.json")
    assert more["groups"] == again["groups"]
    # One more of the 3 single prompts, two more of the 2 after stage 0, none of the others.
    assert len(times(run)) == len(after) + 3 + 2 * 2
    assert more["matrix"] != again["matrix"]


def test_a_kept_prompt_in_the_wrong_list_is_said_before_anything_is_drawn(
    run: Path, tiny_judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    content["sequence"]["prompts"]["single"].append("a photo of a house")
    (run / "config.yaml").write_text(yaml.safe_dump(content), "utf-8")
    assert main(command(run, tiny_judge)) == 2
    said = capsys.readouterr().err
    assert "prompts.single[3]: names 0 concepts" in said
    assert "--sequence FILE" in said
    assert not (run / "evaluation").exists()


def test_after_a_rollback_the_figures_are_of_what_is_left(run: Path, tiny_judge: Path) -> None:
    assert main(command(run, tiny_judge)) == 0
    before = times(run)
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    assert main(command(run, tiny_judge)) == 0
    scores = read_json(run / "evaluation" / "scores.json")
    assert scores["learned"] == ["<new1>"]
    assert list(scores["groups"]) == ["single"]
    assert times(run)["stage-00/single-00-seed-0.png"] == before["stage-00/single-00-seed-0.png"]


def test_wrong_input(run: Path, tiny_judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(run, tmp_path / "nobody")) == 2
    assert "--judge" in capsys.readouterr().err
    content = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    content["sequence"]["prompts"] = {"single": [], "double": [], "triple": []}
    (run / "config.yaml").write_text(yaml.safe_dump(content), "utf-8")
    assert main(command(run, tiny_judge)) == 2
    assert "--sequence FILE" in capsys.readouterr().err


def test_what_cannot_be_scored_is_said_before_anything_is_drawn(
    finished: tuple[Path, Path, Path],
    run: Path,
    tiny_judge: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*more: str) -> str:
        assert main(command(run, tiny_judge, *more)) == 2
        assert not (run / "evaluation" / "images").exists()
        return capsys.readouterr().err

    assert "nowhere cannot be loaded" in refused("--judge", str(tmp_path / "nowhere"))
    assert "holds a clip model" in refused("--dino", str(tiny_judge))
    broken = Path(shutil.copytree(tiny_judge, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes((tiny_judge / "model.safetensors").read_bytes()[:1000])
    assert "broken cannot be loaded" in refused("--judge", str(broken))
    content = yaml.safe_load(finished[1].read_text("utf-8"))
    concepts = [{**each, "images": str(finished[1].parent / each["images"])} for each in content["concepts"]]
    fewer, moved = tmp_path / "fewer.yaml", tmp_path / "moved"
    fewer.write_text(yaml.safe_dump({"concepts": concepts[:1], "prompts": {"single": ["<new1>"]}}), "utf-8")
    assert "has no <new2>, which the run has learned" in refused("--sequence", str(fewer))
    config = run / "config.yaml"
    kept = yaml.safe_load(config.read_text("utf-8"))
    kept["sequence"]["concepts"][1]["images"] = str(moved)
    config.write_text(yaml.safe_dump(kept), "utf-8")
    assert "moved: holds no pictures of <new2> any more" in refused()
    for damaged in ("", "a: [", "a: 1"):
        config.write_text(damaged, "utf-8")
        assert "config.yaml: is damaged" in refused()


@pytest.mark.parametrize("flag", ["--pictures", "--batch-size", "--steps", "--devices"])
def test_nothing_cannot_be_drawn(run: Path, tiny_judge: Path, flag: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(command(run, tiny_judge, flag, "0"))
    assert left.value.code == 2


def test_processes_need_as_many_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cns_lightning.diffusion.devices.available_device", lambda name: name or "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of(None, 2) == "cuda"
    assert device_of("cuda:1", 1) == "cuda:1"
    assert device_of("cpu", 8) == "cpu"
    for name, count, said in ((None, 3, "--devices: is 3, and there are 2 GPUs"), ("cuda:1", 2, "--device: is cuda:1")):
        with pytest.raises(UserError, match=said):
            device_of(name, count)


def test_pictures_of_a_base_model_in_half_precision_are_others() -> None:
    assert EvaluationSettings().drawn_by("abc") == "abc"
    assert EvaluationSettings(precision="bfloat16").drawn_by("abc") not in ("abc", EvaluationSettings().drawn_by("abc"))
