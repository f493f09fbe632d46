"""Settings of single concepts in a run: they are those of the run for one stage, and last through all that happens."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cns_lightning.cli.main import main
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import CALLBACK, StopAt

FAST = {"steps": 4, "learning_rate": 0.02, "token_learning_rate": 0.03}
STOPPED = -1
QUIET = ("--samples.pictures", "0", "--metrics.every_steps", "1")


def with_settings(sequence: Path, *settings: dict[str, Any], name: str = "sequence.yaml") -> Path:
    """Writes the first concepts of a sequence with settings, one for each."""
    content = yaml.safe_load(sequence.read_text("utf-8"))
    pairs = zip(content["concepts"], settings, strict=False)
    concepts = [{**concept, "settings": own} if own else concept for concept, own in pairs]
    path = sequence.with_name(name)
    path.write_text(yaml.safe_dump({**content, "concepts": concepts}), "utf-8")
    return path


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Returns a sequence file of two concepts without settings."""
    return write_sequence(tmp_path / "photos", ["cat", "dog"])


def kept(run: Path) -> dict[str, bytes]:
    paths = [*sorted((run / "registry").iterdir()), run / "metrics.csv"]
    return {path.name: path.read_bytes() for path in paths}


def steps_by_stage(run: Path) -> dict[str, int]:
    rows = list(csv.DictReader((run / "metrics.csv").read_text("utf-8").splitlines()))
    return {row["stage"]: int(row["stage_step"]) for row in rows if row["loss"]}


@pytest.mark.parametrize("falls", ["true", "false"])
def test_a_stage_with_settings_is_that_of_a_run_with_these(
    plain: Path, tiny_base_model: Path, tmp_path: Path, falls: str
) -> None:
    more = (*QUIET, "--model.method.learning_rate_falls", falls)
    prompt = {"prompt": "photo of a <new1> cat"}  # as the template has it
    one = with_settings(plain, {**FAST, **prompt}, name="one.yaml")
    assert main(arguments(tiny_base_model, one, tmp_path / "own", *more, steps=None)) == 0
    rates = [f"--model.method.{key}={FAST[key]}" for key in ("learning_rate", "token_learning_rate")]
    bare = with_settings(plain, {}, name="bare.yaml")
    assert main(arguments(tiny_base_model, bare, tmp_path / "all", *more, *rates, steps=4)) == 0
    assert kept(tmp_path / "own") == kept(tmp_path / "all")


def test_settings_last_through_stops_additions_and_undoing(
    plain: Path, tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ({"token_learning_rate": 0.01, "prompt": "a drawing of a <new1> cat"}, FAST)
    both, one = with_settings(plain, *settings), with_settings(plain, settings[0], name="one.yaml")
    more = (*QUIET, "--data.steps", "3", "--checkpoint.every_steps", "1", CALLBACK)
    whole, other = (arguments(tiny_base_model, both, tmp_path / name, *more, steps=None) for name in "ab")
    assert main(whole) == 0
    expected = kept(tmp_path / "a")
    assert steps_by_stage(tmp_path / "a") == {"0": 3, "1": 4}
    registry = NeuronRegistry.load(tmp_path / "a" / "registry")
    assert [entry.prompt for entry in registry.entries] == ["a drawing of a <new1> cat", "photo of a <new2> dog"]
    config = RunConfig.read(RunFolder(tmp_path / "a"))
    assert [each.get("settings") for each in config.concepts] == list(settings)

    assert main([str(one) if word == str(both) else word for word in other]) == 0
    monkeypatch.setattr(StopAt, "step", 6)
    with pytest.raises(SystemExit):
        main(other)
    monkeypatch.setattr(StopAt, "step", None)
    assert main(other) == 0
    assert kept(tmp_path / "b") == expected

    assert main(["concepts", "--run", str(tmp_path / "b"), "--rollback", "<new1>"]) == 0
    assert main(other) == 0
    assert kept(tmp_path / "b") == expected


def test_what_is_learned_keeps_its_settings_and_what_is_to_come_may_change(
    plain: Path,
    tiny_base_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    more = (*QUIET, "--data.steps", "3", "--checkpoint.every_steps", "1", CALLBACK)

    def fit(*settings: dict[str, Any], stop: int | None = None) -> int:
        monkeypatch.setattr(StopAt, "step", stop)
        sequence = with_settings(plain, *settings, name="now.yaml")
        try:
            return main(arguments(tiny_base_model, sequence, run, *more, steps=None))
        except SystemExit:
            return STOPPED

    assert fit({"steps": 3}, {"steps": 5}, stop=2) == STOPPED  # in the middle of the first stage
    assert fit({"steps": 4}, {"steps": 5}) == 2
    assert "concepts[0].settings.steps was 3 and is 4" in capsys.readouterr().err
    assert fit({"steps": 3}, {"steps": 4}, stop=5) == STOPPED  # the second stage was to come, and is running now
    assert fit({"steps": 3}, {"steps": 4, "learning_rate": 0.01}) == 2
    assert "concepts[1].settings.learning_rate was 'not set' and is 0.01" in capsys.readouterr().err
    assert fit({}, {"steps": 4}) == 2
    assert "concepts[0].settings.steps was 3 and is 'not set'" in capsys.readouterr().err
    assert fit({"steps": 3}, {"steps": 4}) == 0
    assert steps_by_stage(run) == {"0": 3, "1": 4}
    # After going back the second is to come again.
    assert main(["concepts", "--run", str(run), "--rollback", "<new1>"]) == 0
    assert fit({"steps": 3}, {"steps": 1}) == 0
    assert steps_by_stage(run) == {"0": 3, "1": 1}
    assert RunConfig.read(RunFolder(run)).concepts[1]["settings"] == {"steps": 1}


def test_steps_of_the_command_line_win(plain: Path, tiny_base_model: Path, tmp_path: Path) -> None:
    sequence = with_settings(plain, {"steps": 4}, {"token_learning_rate": 0.01})
    run = tmp_path / "run"
    assert main(arguments(tiny_base_model, sequence, run, *QUIET, steps=2)) == 0
    assert steps_by_stage(run) == {"0": 2, "1": 2}
    assert [each.get("settings") for each in RunConfig.read(RunFolder(run)).concepts] == [
        None,
        {"token_learning_rate": 0.01},
    ]
    assert main(arguments(tiny_base_model, sequence, run, *QUIET, steps=2)) == 0


def test_rates_that_a_method_does_not_have_are_refused_before_anything_starts(
    plain: Path, tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = with_settings(plain, {"text_learning_rate": 0.1}, {"learning_rate": 0.1})
    run = tmp_path / "run"
    assert main(arguments(tiny_base_model, sequence, run)) == 2
    said = capsys.readouterr().err
    assert "concepts[0].settings.text_learning_rate: is not a learning rate of ConceptNeuronSelection" in said
    assert "it has learning_rate and token_learning_rate" in said
    assert main(arguments(tiny_base_model, sequence, run, method="textual_inversion")) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in said] == [
        "concepts[0].settings.text_learning_rate", "concepts[1].settings.learning_rate",
    ]  # fmt: skip
    assert not run.exists()


def test_a_prompt_whose_token_is_not_read_is_refused(
    plain: Path, tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = with_settings(plain, {"prompt": "a photo of a cat " * 40 + "<new1>"}, {})
    assert main(arguments(tiny_base_model, sequence, tmp_path / "run")) == 2
    assert "settings.prompt of <new1>: is so long that <new1> stands behind" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_a_caption_whose_token_is_not_read_is_refused_unless_captions_are_not_read(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat"])
    caption = sequence.parent / "cat0" / "0.txt"
    caption.write_text("a photo of a cat " * 40 + "and a <new1> cat", "utf-8")
    command = arguments(tiny_base_model, sequence, tmp_path / "run", *QUIET, steps=1)
    assert main(command) == 2
    assert f"{caption}: is so long that <new1> stands behind" in capsys.readouterr().err
    assert main([*command, "--data.captions", "false"]) == 0


def test_a_concept_that_is_to_come_may_be_another_or_go(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_sequence(tmp_path / "photos", ["cat", "dog", "cup"])

    def fit(words: list[str], run: str, stop: int | None = None) -> int:
        monkeypatch.setattr(StopAt, "step", stop)
        content = yaml.safe_load(whole.read_text("utf-8"))
        pairs = zip(content["concepts"], words, strict=False)
        concepts = [{**concept, "class_word": word} for concept, word in pairs]
        path = whole.with_name("now.yaml")
        path.write_text(yaml.safe_dump({**content, "concepts": concepts}), "utf-8")
        more = (*QUIET, "--checkpoint.every_steps", "1", CALLBACK)
        try:
            return main(arguments(tiny_base_model, path, tmp_path / run, *more, steps=3))
        except SystemExit:
            return STOPPED

    assert fit(["cat", "dog", "cup"], "run", stop=5) == STOPPED  # in the middle of the second stage
    assert fit(["cat", "bird"], "run") == 2
    assert "concepts[1].class_word was 'dog' and is 'bird'" in capsys.readouterr().err
    assert fit(["cat"], "run") == 2
    assert "concepts[1] was '<new2>' and is missing" in capsys.readouterr().err
    assert fit(["cat", "dog", "car"], "run", stop=6) == STOPPED  # another third one, that has taken no step
    assert fit(["cat", "dog"], "run") == 0  # none
    assert fit(["cat", "dog", "bird"], "run") == 0
    assert fit(["cat", "dog", "bird"], "at_once") == 0
    assert kept(tmp_path / "run") == kept(tmp_path / "at_once")
