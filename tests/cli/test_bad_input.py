"""What a user can get wrong on the way from a command to a run: one sentence, exit code 2, nothing lost."""

import shutil
from pathlib import Path

import pytest
import yaml

from cns_lightning.cli.main import main
from cns_lightning.miniature.tiny import tiny_base_model as write_tiny_base_model
from cns_lightning.registry.registry import NeuronRegistry
from tests.runs.learning import arguments, write_sequence


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """Returns a sequence file of two concepts."""
    return write_sequence(tmp_path / "sequence", ["cat", "dog"])


def refused(capsys: pytest.CaptureFixture[str], command: list[str]) -> str:
    """Runs a command that must be refused and gives what it said."""
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def change(sequence: Path, number: int, **keys: str) -> None:
    """Changes keys of a concept in a sequence file."""
    content = yaml.safe_load(sequence.read_text("utf-8"))
    content["concepts"][number].update(keys)
    sequence.write_text(yaml.safe_dump(content), "utf-8")


def test_unknown_key(tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, arguments(tiny_base_model, sequence, tmp_path / "run", "--data.bath_size", "3"))
    assert "bath_size" in said
    assert "Did you mean data.batch_size" in said
    assert len(said.splitlines()) == 1


def test_unknown_key_of_the_method(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--model.method.init_args.learning_rat", "3")
    said = refused(capsys, arguments(tiny_base_model, sequence, tmp_path / "run", *more))
    assert "learning_rat" in said


def test_wrong_type(tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, arguments(tiny_base_model, sequence, tmp_path / "run", "--data.batch_size", "many"))
    assert "batch_size" in said
    assert "many" in said


@pytest.mark.parametrize("key", ["data.steps", "data.batch_size", "samples.steps", "checkpoint.every_steps"])
def test_a_number_below_one(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    said = refused(capsys, arguments(tiny_base_model, sequence, tmp_path / "run", f"--{key}", "-3", steps=None))
    assert key in said
    assert "-3" in said
    assert not (tmp_path / "run").exists()


def test_missing_config_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, ["fit", "--config", str(tmp_path / "none.yaml"), "--run", str(tmp_path / "run")])
    assert "none.yaml" in said


def test_run_folder_is_needed(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(tiny_base_model, sequence, tmp_path / "run")
    position = command.index("--run")
    assert "run" in refused(capsys, command[:position] + command[position + 2 :])


def test_missing_picture_folder(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(sequence, 1, images="nowhere")
    said = refused(capsys, arguments(tiny_base_model, sequence, tmp_path / "run"))
    assert "concepts[1].images" in said
    assert not (tmp_path / "run").exists()


def test_unreadable_picture_of_the_last_concept_stops_before_any_work(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sequence.parent / "dog1" / "0.png").write_bytes(b"no picture")
    said = refused(capsys, arguments(tiny_base_model, sequence, tmp_path / "run"))
    assert "0.png: is not a picture" in said
    assert not (tmp_path / "run").exists()


def test_token_of_the_vocabulary(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(sequence, 1, token="<|endoftext|>")
    said = refused(capsys, arguments(tiny_base_model, sequence, tmp_path / "run"))
    assert "<|endoftext|>" in said
    # Found before the first stage, not when the second is reached.
    assert not (tmp_path / "run" / "registry" / "000-new1.safetensors").exists()


def test_no_permission_to_write(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    said = refused(capsys, arguments(tiny_base_model, sequence, tmp_path / "file" / "run"))
    assert f"{tmp_path / 'file'} is a file. Choose another folder" in said


def test_missing_base_model(sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, arguments(tmp_path / "no-model", sequence, tmp_path / "run"))
    assert "no-model" in said


def test_base_model_that_changed_under_a_run(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_base_model, model)
    first = sequence.with_name("first.yaml")
    content = yaml.safe_load(sequence.read_text("utf-8"))
    first.write_text(yaml.safe_dump({**content, "concepts": content["concepts"][:1]}), "utf-8")
    assert main(arguments(model, first, run)) == 0
    kept = (run / "registry" / "000-new1.safetensors").read_bytes()
    shutil.rmtree(model)
    write_tiny_base_model(model, seed=5)
    capsys.readouterr()
    said = refused(capsys, arguments(model, sequence, run))
    assert "was learned on the base model" in said
    assert (run / "registry" / "000-new1.safetensors").read_bytes() == kept


def test_a_stage_that_a_callback_ended_does_not_count(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(tiny_base_model, sequence, tmp_path / "run")
    said = refused(capsys, [*command, "--trainer.callbacks+=tests.runs.impatient.Impatient"])
    assert "something ended the stage of <new1> after" in said
    assert (
        not (tmp_path / "run" / "registry" / "registry.json").exists()
        or not NeuronRegistry.load(tmp_path / "run" / "registry").tokens
    )
    # The remedy works in the same folder.
    assert main(command) == 0
    assert NeuronRegistry.load(tmp_path / "run" / "registry").tokens == ["<new1>", "<new2>"]


def test_a_run_that_a_callback_ended_between_stages_is_not_finished(
    tiny_base_model: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(tiny_base_model, sequence, tmp_path / "run")
    after_the_stage = ["--trainer.callbacks+=tests.runs.impatient.Impatient", "--trainer.callbacks.batch", "2"]
    assert "ended the run after 1 of 2 concepts" in refused(capsys, [*command, *after_the_stage])
    assert main(command) == 0


def test_settings_with_members_of_an_enum_are_kept(tiny_base_model: Path, sequence: Path, tmp_path: Path) -> None:
    more = ["--trainer.callbacks+=Timer", "--trainer.callbacks.duration", "01:00:00:00"]
    assert main(arguments(tiny_base_model, sequence, tmp_path / "run", *more)) == 0
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text("utf-8"))
    assert kept["whole"]["trainer"]["callbacks"][-1]["init_args"]["interval"] == "step"


@pytest.mark.parametrize(
    ("more", "part"),
    [
        (["--trainer.callbacks+=LearningRateMonitor"], "trainer: Cannot use `LearningRateMonitor`"),
        (["--trainer.enable_checkpointing", "false"], "trainer: Trainer was configured with"),
        (["--trainer.logger", "WandbLogger"], "WandbLogger: Requirement 'wandb"),
        (["--trainer.accelerator", "nonsense"], "trainer: You selected an invalid accelerator name"),
        (["--trainer.accelerator", "tpu"], "trainer: Requirement 'torch_xla"),
        (["--trainer.callbacks+=ModelCheckpoint"], "has a ModelCheckpoint that says no dirpath"),
        (
            ["--trainer.callbacks+=cns_lightning.callbacks.sample_grid.SampleGrid"],
            "has SampleGrid, and every run has one",
        ),
    ],
)
def test_parts_of_lightning_that_do_not_go_together(
    tiny_base_model: Path,
    sequence: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    part: str,
) -> None:
    said = refused(capsys, arguments(tiny_base_model, sequence, tmp_path / "run", *more))
    assert part in said
    assert len(said.splitlines()) == 1
