"""What is wrong in a configuration is said in one sentence, before anything is loaded."""

from pathlib import Path

import pytest
import yaml

from cns_lightning.configuration.parser import checked_configuration
from cns_lightning.errors import UserError
from cns_lightning.user_files import read_yaml, with_shipped_configs

DEMO = ["--config", "configs/experiments/demo.yaml"]


def refused(*words: str) -> str:
    with pytest.raises(UserError) as found:
        checked_configuration([*DEMO, *words])
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--trainer.precision", "fp16"), ("is fp16", "Did you mean 16-mixed")),
        (("--trainer.precision", "bf16-true"), ("is bf16-true, which converts what is trained", "Write bf16-mixed")),
        (("--trainer.precision", "64-true"), ("is 64-true",)),
        (("--trainer.precision", "8bit"), ("is 8bit", "bf16-mixed")),
        (("--model.method.token_start", "rareword"), ("is rareword", "Did you mean rare_word")),
        (("--trainer.devices", "two"), ("trainer.devices: is two",)),
        (("--seed_everything", "-1"), ("--seed_everything: is -1, a number from 0",)),
        (("--seed_everything", str(2**64 - 1)), ("--seed_everything: is 18446744073709551615",)),
        (("--model.method.learning_rate", "-1"), ("learning_rate: is -1, at least 0 is needed",)),
        (("--model.method.learning_rate", "nan"), ("learning_rate: is nan, a finite number is needed",)),
        (("--model.method.balance_steps", "0"), ("balance_steps: is 0, at least 1 is needed",)),
        (("--model.method.learning_rate_factors", "{scene: 0}"), ("is 0, more than 0 is needed",)),
        (("--model.base_dtype", "half"), ("is half, none of float32, bfloat16, float16",)),
        (("--data.augmentation.flip", "1.5"), ("data.augmentation.flip: is 1.5, at most 1 is needed",)),
        (("--data.augmentation.crop_scales", "[0, 1]"), ("crop_scales: is 0, more than 0 is needed",)),
        (("--data.batch_size", "two"), ("data.batch_size: is two, a whole number is needed",)),
        (("--snapshots.steps", "[0, 5]"), ("snapshots.steps: is 0, at least 1 is needed",)),
        (("--snapshots.steps", "[5, 9]", "--steps", "9"), ("--snapshots.steps: has 9, and a stage has 9 steps",)),
        (("--trainer.devices", "0"), ("trainer.devices: is 0, at least 1 is needed",)),
        (("--trainer.gradient_clip_val", "-1"), ("trainer.gradient_clip_val: is -1, at least 0 is needed",)),
        (("--lr", "1"), ("lr: is an unknown key. Set model.method.init_args.learning_rate",)),
        (("--resume",), ("resume: is an unknown key", "goes on by itself")),
        (("--data.num_workers", "2"), ("data.num_workers: is an unknown key. Leave it out",)),
        (("--data.steps=",), ("data.steps: is empty, a whole number is needed",)),
        (("--steps", "true"), ("steps: is True, a whole number is needed",)),
        (("--trainer.gradient_clip_val", "x"), ("gradient_clip_val: is x, a",)),
        (("--snapshots.steps", "5"), ("snapshots.steps: is 5, a list is needed",)),
        (("--trainer.max_epochs", "1"), ("trainer.max_epochs: is 1, and the sequence has 7 concepts",)),
        (("--model.method.learning_rate", "null"), ("learning_rate", "has no value")),
        (("--model.base_model", ""), ("--model.base_model: is empty",)),
        (("--data.sequence", ""), ("--data.sequence: is empty",)),
        (
            ("--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling", "{0: 2}"),
            ("trainer.callbacks: has GradientAccumulationScheduler, which changes",),
        ),
        (("word",), ("command line: word: belongs to no option", "quotes")),
        (("configs/hardware/cpu.yaml",), ("configs/hardware/cpu.yaml: belongs to no option. Put --config before it",)),
    ],
)
def test_values_and_words(words: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path) -> None:
    message = refused("--run", str(tmp_path / "run"), *words)
    assert all(part in message for part in parts), message


def test_merged_keys_are_no_second_ones(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    text = "b: &b {a: 1}\ng:\n  mid: &m\n    <<: *b\n    a: 2\ntop:\n  <<: *m\n"
    path.write_text(text, "utf-8")
    assert read_yaml(path, "") == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("share: 1.5", "share: is 1.5, at most 1 is needed"),
        ("vote_threshold: 0", "vote_threshold: is 0, more than 0, or auto, is needed"),
        ("vote_threshold: aut", "vote_threshold: is aut, none of auto. Did you mean auto"),
    ],
)
def test_settings_of_callbacks(setting: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    scoring = "cns_lightning.callbacks.importance_scoring.ImportanceScoring"
    path.write_text(f"trainer:\n  callbacks:\n  - class_path: {scoring}\n    init_args:\n      {setting}\n", "utf-8")
    assert part in refused("--run", str(tmp_path / "run"), "--config", str(path))


def test_an_empty_run_folder_is_refused() -> None:
    assert "--run: is empty" in refused("--run", "")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checked_configuration([*DEMO, "--run", "~/runs/a"]).run == str(tmp_path / "runs" / "a")


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"data:\n  steps: 3\nmodel: {}\ndata:\n  batch_size: 3\n", "line 4: data stands here for the second time"),
        (b"data:\n  steps: 3\n  steps: 4\n", "line 3: steps stands here for the second time, after line 2"),
        ("trainer:\n  devices: 1\n".encode("utf-16"), "is not UTF-8 text"),
        (b"# caf\xe9\ntrainer:\n  devices: 1\n", "line 1: is not UTF-8 text"),
        (b"data: [\n", "is not valid YAML"),
    ],
)
def test_files(data: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_bytes(data)
    message = refused("--run", str(tmp_path / "run"), "--config", str(path))
    assert message.startswith(str(path))
    assert part in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_time", "00:00:01:00"),
        ("max_steps", "3"),
        ("limit_train_batches", "2"),
        ("limit_train_batches", "0.5"),
        ("overfit_batches", "1"),
        ("fast_dev_run", "true"),
        ("use_distributed_sampler", "true"),
    ],
)
def test_what_cuts_a_stage_short_is_refused(key: str, value: str, tmp_path: Path) -> None:
    assert f"trainer.{key}: is " in refused("--run", str(tmp_path / "run"), f"--trainer.{key}", value)
    whole = ["--trainer.limit_train_batches", "1.0", "--trainer.max_steps", "-1"]
    checked_configuration([*DEMO, "--run", str(tmp_path / "run"), *whole])


def test_a_configuration_below_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("data: {steps: 7}\ndata: {steps: 8}\n", "utf-8")
    for words in (["--config=~/mine.yaml"], ["--config", "~/mine.yaml"]):
        assert with_shipped_configs(words)[-1].endswith(str(tmp_path / "mine.yaml"))
        with pytest.raises(UserError, match="stands here for the second time"):
            checked_configuration([*DEMO, *with_shipped_configs(words)])


def test_steps_that_a_file_overrides_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tried.yaml"
    file.write_text("steps: 20\n", "utf-8")
    said = refused("--config", str(file), "--data.steps", "800", "--run", str(tmp_path / "run"))
    assert said.startswith("--data.steps: does not count beside steps: 20")
    given = ["--config", str(file), "--steps", "null", "--data.steps", "800", "--run", str(tmp_path / "run")]
    assert checked_configuration([*DEMO, *given]).data.steps == 800
