"""The whole way on a tiny random model: learn two concepts, continue, generate, and check every promise bit by bit."""

import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cns_lightning.cli.main import main
from cns_lightning.configuration.parser import checked_configuration
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import key_value_projections
from cns_lightning.module import ContinualPersonalization
from cns_lightning.pipeline import load_pipeline
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.storage import read_json
from tests.runs.learning import arguments, write_sequence
from tests.runs.stop_at import PLAN, StopAt


@pytest.fixture(scope="module")
def finished(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Returns base model, sequence file and run folder of a finished run of two concepts."""
    folder = tmp_path_factory.mktemp("fit")
    sequence = write_sequence(folder, ["cat", "cat"])
    run = folder / "run"
    assert main(arguments(tiny_base_model, sequence, run)) == 0
    return tiny_base_model, sequence, run


def test_run_folder_holds_what_was_promised(finished: tuple[Path, Path, Path]) -> None:
    run = finished[2]
    files = """config.yaml registry/registry.json registry/000-new1.safetensors registry/001-new2.safetensors
        registry/general.safetensors checkpoints/last.ckpt metrics.csv timings.json log.txt
        samples/stage-0.png samples/stage-1.png"""
    for name in files.split():
        assert (run / name).stat().st_size > 0, name


def test_a_run_is_learned_anew_from_its_own_configuration(finished: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, sequence, run = finished
    logger = (
        "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
        "--trainer.logger.init_args.save_dir={run}",
        "--trainer.log_every_n_steps=1",
    )
    assert main(arguments(base, sequence, tmp_path / "first", *logger)) == 0
    assert main(["fit", "--config", str(tmp_path / "first" / "config.yaml"), "--run", str(tmp_path / "again")]) == 0
    for name in ("000-new1.safetensors", "001-new2.safetensors", "registry.json"):
        expected = (run / "registry" / name).read_bytes()
        assert (tmp_path / "again" / "registry" / name).read_bytes() == expected, name
    assert (tmp_path / "again" / "lightning_logs").exists(), "a logger writes into the folder of its own run"
    first, again = (yaml.safe_load((tmp_path / name / "config.yaml").read_text()) for name in ("first", "again"))
    assert first["settings"] == again["settings"]


@pytest.mark.parametrize("damaged", ["whole:", "sequence: 3"])
def test_a_damaged_configuration_of_a_run_is_refused(
    damaged: str, finished: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((finished[2] / "config.yaml").read_text()) | yaml.safe_load(damaged)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "again")]) == 2
    assert f"{tmp_path / 'config.yaml'}: is damaged" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_only_masked_weights_and_own_tokens_moved(finished: tuple[Path, Path, Path]) -> None:
    base_folder, _, run = finished
    base = BaseModel.load(str(base_folder))
    registry = NeuronRegistry.load(run / "registry")
    learned = load_pipeline(run)
    union = {name: registry.mask("<new1>")[name] | registry.mask("<new2>")[name] for name in registry.mask("<new1>")}
    before, after = dict(base.unet.named_parameters()), dict(learned.unet.named_parameters())
    moved = 0
    for name, weight in before.items():
        outside = ~union[name] if name in union else torch.ones_like(weight, dtype=torch.bool)
        assert torch.equal(after[name][outside], weight[outside]), name
        moved += int((after[name] != weight).sum())
    assert moved > 0
    for old, new in ((base.vae, learned.vae), (base.text_encoders[0], learned.text_encoder)):
        states = new.state_dict()
        for name, value in old.state_dict().items():
            assert torch.equal(states[name][: len(value)] if value.ndim else states[name], value), name


def test_registry_replays_the_trained_weights_bit_for_bit(finished: tuple[Path, Path, Path]) -> None:
    base_folder, _, run = finished
    registry = NeuronRegistry.load(run / "registry")
    projections = key_value_projections(BaseModel.load(str(base_folder)).unet)
    replayed = {name: projection.weight.detach().clone() for name, projection in projections.items()}
    for number, token in enumerate(registry.tokens):
        stored = load_file(run / "registry" / f"00{number}-new{number + 1}.safetensors")["values"].float()
        start = 0
        for name in registry.mask(token):
            inside = registry.mask(token)[name]
            count = int(inside.sum())
            replayed[name][inside] += stored[start : start + count]
            start += count
    trained = registry.weights()
    assert all(torch.equal(replayed[name], trained[name]) for name in replayed)


def test_two_concepts_of_one_class_differ(finished: tuple[Path, Path, Path]) -> None:
    registry = NeuronRegistry.load(finished[2] / "registry")
    first, second = (registry.embedding(token) for token in registry.tokens)
    assert not torch.equal(first, second)
    assert any(
        not torch.equal(registry.mask("<new1>")[name], registry.mask("<new2>")[name])
        for name in registry.mask("<new1>")
    )


def test_finished_run_says_so(finished: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    base, sequence, run = finished
    before = (run / "registry" / "registry.json").read_bytes()
    assert main(arguments(base, sequence, run)) == 0
    assert "finished" in capsys.readouterr().err
    assert (run / "registry" / "registry.json").read_bytes() == before


def test_usual_device_is_kept_by_name(finished: tuple[Path, Path, Path], tmp_path: Path) -> None:
    base, sequence, _ = finished
    usual = arguments(base, sequence, tmp_path / "run", "--trainer.accelerator", "auto")
    # As `launch` sees it on a login node: open until a job has begun.
    assert checked_configuration(usual[1:]).trainer.accelerator == "auto"
    assert main(usual) == 0
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text("utf-8"))["settings"]["trainer.accelerator"]
    assert kept == ("gpu" if torch.cuda.is_available() else "cpu")
    assert checked_configuration(usual[1:]).trainer.accelerator == kept
    assert (
        main(arguments(base, sequence, tmp_path / "run", "--trainer.accelerator", "gpu" if kept == "cpu" else "cpu"))
        == 2
    )


def test_changed_configuration_is_refused(
    finished: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base, sequence, run = finished
    assert main(arguments(base, sequence, run, "--model.method.init_args.learning_rate", "0.5")) == 2
    assert "learning_rate" in capsys.readouterr().err


def test_model_is_made_on_the_processor_where_another_device_is_the_default(
    finished: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, sequence, run = finished
    plain = ContinualPersonalization.configure_model

    def on_another_device(module: ContinualPersonalization) -> None:
        # As Lightning calls it with a GPU.
        with torch.device("meta"):
            plain(module)

    monkeypatch.setattr(ContinualPersonalization, "configure_model", on_another_device)
    assert main(arguments(base, sequence, tmp_path / "run")) == 0
    name = "registry/001-new2.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()


def test_interrupted_run_ends_like_an_uninterrupted_one(
    finished: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, sequence, run = finished
    other = tmp_path / "run"
    command = arguments(base, sequence, other, "--trainer.callbacks+=tests.runs.stop_at.StopAt")
    # Ignored, where the tests run in the background of a shell.
    before = signal.getsignal(signal.SIGINT)
    for step in (2, 4):
        monkeypatch.setattr(StopAt, "step", step)
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 128 + signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) is before
        # What a stopped stage took counts.
        assert read_json(other / "timings.json")["stages"][str((step - 1) // 3)]["seconds"]["training"] > 0
    monkeypatch.setattr(StopAt, "step", None)
    assert main(command) == 0
    for name in ("000-new1.safetensors", "001-new2.safetensors"):
        assert (other / "registry" / name).read_bytes() == (run / "registry" / name).read_bytes()
    for name in ("metrics.csv", "samples/stage-0.png", "samples/stage-1.png"):
        assert (other / name).read_bytes() == (run / name).read_bytes()


def test_interrupted_run_with_earlier_prompts_in_the_penalty(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = write_sequence(tmp_path / "sequence", ["cat", "dog", "cat"])
    form = (
        "--trainer.callbacks+=tests.runs.stop_at.StopAt",
        "--model.method.init_args.regularization",
        "function_space",
    )
    form += ("--model.method.init_args.balance_steps", "1")
    whole, other = tmp_path / "whole", tmp_path / "other"
    assert main(arguments(tiny_base_model, sequence, whole, *form)) == 0
    monkeypatch.setattr(StopAt, "step", 8)
    with pytest.raises(SystemExit):
        main(arguments(tiny_base_model, sequence, other, *form))
    monkeypatch.setattr(StopAt, "step", None)
    assert main(arguments(tiny_base_model, sequence, other, *form)) == 0
    assert (other / "registry" / "registry.json").read_bytes() == (whole / "registry" / "registry.json").read_bytes()


@pytest.mark.parametrize(("name", "saved"), [("SIGINT", True), ("TWICE", False)])
def test_ctrl_c_saves_and_a_second_one_stops_at_once(
    finished: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, saved: bool
) -> None:
    base, sequence, _ = finished
    monkeypatch.setenv(PLAN, f"0:2:{name}")
    more = ["--trainer.callbacks+=tests.runs.stop_at.StopAt", "--trainer.callbacks+=ModelCheckpoint"]
    more += ["--trainer.callbacks.dirpath", str(tmp_path / "mine")]
    with pytest.raises(SystemExit) as stopped:
        main(arguments(base, sequence, tmp_path / "run", *more))
    assert stopped.value.code == 128 + signal.SIGINT
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() == saved


def test_appended_concept_equals_a_sequence_with_it_from_the_start(
    finished: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    base, sequence, run = finished
    content = yaml.safe_load(sequence.read_text("utf-8"))
    shorter = sequence.with_name("shorter.yaml")
    shorter.write_text(yaml.safe_dump({**content, "concepts": content["concepts"][:1]}), "utf-8")
    other = tmp_path / "run"
    assert main(arguments(base, shorter, other)) == 0
    assert main(arguments(base, sequence, other)) == 0
    for name in ("registry/001-new2.safetensors", "metrics.csv", "samples/stage-1.png"):
        assert (other / name).read_bytes() == (run / name).read_bytes()


def test_metrics_have_a_row_a_stage_at_least(finished: tuple[Path, Path, Path]) -> None:
    lines = (finished[2] / "metrics.csv").read_text("utf-8").splitlines()
    assert lines[0].startswith("step,stage,concept")
    # One before a stage's first step, with the fixed noise's loss alone, and one at its end.
    assert [line.split(",")[1] for line in lines[1:]] == ["0", "0", "1", "1"]
    assert [bool(line.split(",")[4]) for line in lines[1:]] == [False, True] * 2


def test_tensorboard_logs_the_loss_by_config(tiny_base_model: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs = ("--config", "configs/logging/tensorboard.yaml", "--trainer.log_every_n_steps", "1")
    sequence, run = write_sequence(tmp_path / "sequence", ["cat", "dog"]), tmp_path / "run"
    content = yaml.safe_load(sequence.read_text("utf-8"))
    shorter = sequence.with_name("shorter.yaml")
    shorter.write_text(yaml.safe_dump({**content, "concepts": content["concepts"][:1]}), "utf-8")
    for each in (shorter, sequence):  # goes on in the same place
        assert main(arguments(tiny_base_model, each, run, *logs, steps=2)) == 0
    (folder,) = {path.parent for path in tmp_path.rglob("events.*")}
    assert folder == run / "tensorboard"
    assert [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("loss")] == [0, 1, 2, 3]
