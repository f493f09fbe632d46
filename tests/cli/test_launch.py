"""`launch`: the script says what was asked, bash reads it as it was meant, and what `fit` refuses is never queued."""

import subprocess
from pathlib import Path

import pytest
import yaml

from cns_lightning.cli.launch import seconds_of
from cns_lightning.cli.main import main
from tests.runs.learning import arguments, write_sequence

DEMO = ("launch", "--config", "configs/experiments/demo.yaml")


def shown(capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """Returns the script of a dry run."""
    assert main([*DEMO, *more, "--dry-run"]) == 0
    return capsys.readouterr().out


def started(script: str, folder: Path, number: int = 0) -> list[str]:
    """Runs a script with an srun that only writes down its words, and gives them."""
    (folder / "srun").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/words"\n', "utf-8")
    (folder / "srun").chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": str(number)}
    subprocess.run(["bash", "-s"], input=script, text=True, check=True, env=environment)
    return (folder / "words").read_text("utf-8").splitlines()


def test_options_of_the_job(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    script = shown(
        capsys, "--run", str(run), "--nodes", "2", "--devices", "4", "--partition", "gpu", "--time", "2:00:00",
        "--signal-seconds", "90", "--trainer.accelerator", "gpu", "--sbatch=--exclusive", "--setup", "module load cuda",
    )  # fmt: skip
    lines = [line.split("    #")[0] for line in script.splitlines()]
    for option in (
        "--nodes=2", "--ntasks-per-node=4", "--gres=gpu:4", "--partition=gpu", "--time=2:00:00", "--signal=USR1@90",
        "--requeue", "--open-mode=append", "--exclusive", f"--output={run}/slurm/%j.log",
    ):  # fmt: skip
        assert f"#SBATCH {option}" in lines
    assert lines.index("module load cuda") < lines.index(next(line for line in lines if line.startswith("srun")))
    assert not run.exists()


def test_words_with_spaces_reach_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "a run's 5% $HOME"
    script = shown(capsys, "--run", str(run), "--steps", "5")
    assert "--gres" not in script
    assert f"{tmp_path}/a run" in script
    assert "5%% $HOME/slurm/%j.log" in script
    words = started(script, tmp_path)
    assert words[0] == "--kill-on-bad-exit=1"
    assert words[words.index("fit") :] == [
        "fit", "--config", "configs/experiments/demo.yaml", "--steps", "5",
        "--trainer.devices", "1", "--trainer.num_nodes", "1", "--run", str(run),
    ]  # fmt: skip


def test_arrays_over_configurations_and_seeds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = [tmp_path / "few.yaml", tmp_path / "many.yaml"]
    for file, steps in zip(files, (5, 50), strict=True):
        file.write_text(f"data: {{steps: {steps}}}\n", "utf-8")
    script = shown(capsys, "--run", str(tmp_path / "all"), "--array", *map(str, files), "--seeds", "0", "7")
    assert "#SBATCH --array=0-3\n" in script
    words = started(script, tmp_path, 3)
    assert words[-1] == str(tmp_path / "all" / "many-seed-7")
    assert words[words.index(str(files[1])) - 1] == "--config"
    assert words[words.index("--seed_everything") + 1] == "7"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--devices", "0"], "--devices: is 0"),
        (["--time", "soon"], "--time: is soon"),
        (["--time", "1"], "over before the signal"),
        (["--trainer.devices=2"], "Use --devices"),
        (["--trainer.devices", "auto"], "Use --devices"),
        (["--data.bath_size", "3"], "Did you mean data.batch_size"),
        (["--array", "one/a.yaml", "two/a.yaml"], "two files have the same name"),
        (["--array", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_input_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, wrong: list[str], said: str
) -> None:
    assert main([*DEMO, "--run", str(tmp_path / "run"), "--dry-run", *wrong]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_machine_without_slurm_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*DEMO, "--run", str(tmp_path / "run")]) == 2
    assert "no sbatch on this machine" in capsys.readouterr().err


def test_sbatch_gets_a_script_that_overwrites_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho '41;cluster'\n", "utf-8")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for steps in ("5", "5", "6"):
        assert main([*DEMO, "--run", str(tmp_path / "run"), "--steps", steps]) == 0
        assert "submitted as job 41: " in capsys.readouterr().out
    scripts = sorted((tmp_path / "run" / "slurm").iterdir())
    assert [script.name for script in scripts] == ["job-2.sbatch", "job.sbatch"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800), ("1:30", 90), ("2:00:00", 7200), ("1-12", 129600), ("1-0:30", 88200), ("0-0:0:5", None),
        ("0-00:00:05", 5), ("", None), ("1:2", None), ("x", None),
    ],
)  # fmt: skip
def test_time_limits_are_read_as_sbatch_does(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


def test_a_run_that_has_begun_is_launched_again_as_it_was(
    capsys: pytest.CaptureFixture[str], tiny_base_model: Path, tmp_path: Path
) -> None:
    sequence, run = write_sequence(tmp_path / "one", ["cat"]), tmp_path / "run"
    words = arguments(tiny_base_model, sequence, run)[1:]
    assert main(["fit", *words]) == 0
    # As SLURM would have learned it: the sizes of the job are the run's settings.
    kept = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    kept["settings"] |= {"trainer.devices": 2, "trainer.num_nodes": 2}
    del kept["settings"]["trainer.strategy"]
    kept["settings"]["trainer.strategy.class_path"] = "cns_lightning.training.strategy.StagedDDP"
    (run / "config.yaml").write_text(yaml.safe_dump(kept), "utf-8")
    assert main(["launch", *words, "--nodes", "2", "--devices", "2", "--dry-run"]) == 0, capsys.readouterr().err
    assert "#SBATCH --nodes=2" in capsys.readouterr().out
    assert main(["launch", *words, "--nodes", "1", "--devices", "2", "--dry-run"]) == 2
    assert "trainer.num_nodes was 2 and is 1" in capsys.readouterr().err


def test_files_of_an_array_ask_for_equal_machines_and_may_be_shipped_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for nodes, file in enumerate(files, start=1):
        file.write_text(f"trainer: {{num_nodes: {nodes}}}\n", "utf-8")
    assert main([*DEMO, "--run", str(tmp_path / "all"), "--array", *map(str, files), "--dry-run"]) == 2
    assert "trainer.num_nodes: is 1, 2 in the files of --array. Give --nodes for all" in capsys.readouterr().err
    script = shown(capsys, "--run", str(tmp_path / "all"), "--array", *map(str, files), "--nodes", "2")
    assert "#SBATCH --nodes=2" in script
    script = shown(capsys, "--run", str(tmp_path / "all"), "--array", "hardware/cpu")
    assert "hardware/cpu.yaml" in script
