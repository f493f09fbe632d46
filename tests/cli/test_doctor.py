"""`doctor` says what `fit` would refuse, all at once, and what is worth a look; it starts and writes nothing."""

import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from cns_lightning.cli.main import main
from cns_lightning.sequences.sequence import Sequence
from cns_lightning.user_files import command_line
from tests.doctor.photos import write_cut, write_good, write_odd
from tests.runs.learning import arguments


@pytest.fixture(autouse=True)
def long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps cells of the table in one piece."""
    monkeypatch.setattr("cns_lightning.cli.doctor.LINE", 1000)


def family(folder: Path, *words: str, **changes: object) -> Path:
    """Writes a sequence of a folder of pictures for each word."""
    concepts = []
    for number, word in enumerate(words):
        write_good(folder / word, 10 + number)
        concepts.append({"token": f"<new{number}x>", "class_word": word, "kind": "animal", "images": word})
    prompts = {"single": [f"a photo of a <new0x> {words[0]}"]}
    path = folder / "family.yaml"
    path.write_text(yaml.safe_dump({"concepts": concepts, "prompts": prompts} | changes), "utf-8")
    return path


def looked(base: Path, sequence: Path, run: Path, *more: str) -> list[str]:
    """Returns the command line of doctor for a short run."""
    return ["doctor", *arguments(base, sequence, run, *more, steps=1)[1:]]


def rows(shown: str, heading: str) -> str:
    """Returns the part of the table below a heading, as one line of text; empty where there is none."""
    parts = [part for part in shown.split("\n\n") if part.startswith(heading)]
    return " ".join(parts[0].split()) if parts else ""


def test_a_run_that_fit_takes(tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence, run = family(tmp_path, "cat", "dog"), tmp_path / "run"
    write_odd(tmp_path / "cat")
    command = looked(tiny_base_model, sequence, run)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(command) == 0
    shown = capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert shown.err == ""
    assert "Stops a fit" not in shown.out
    assert "smaller than the 32 pixels" in rows(shown.out, "Worth a look")
    notes = rows(shown.out, "Nothing to do")
    for name in ("turned.jpg", "cmyk.jpg", "deep.png", "alpha.png", "moving.gif", "named.jpg", "--run", "memory"):
        assert name in notes, name
    # What it ends with is the command that comes next.
    assert shown.out.splitlines()[-1].startswith(f"  {command_line(['fit', '--config', 'configs/methods/cns.yaml'])}")
    assert main(["fit", *command[1:]]) == 0
    # What is learned needs its pictures no more, and cannot be learned with other settings.
    shutil.rmtree(tmp_path / "cat")
    capsys.readouterr()
    assert main(command) == 0
    assert "turned.jpg" not in capsys.readouterr().out
    assert main([*command, "--data.batch_size", "1"]) == 2
    assert "holds a run with another configuration" in rows(capsys.readouterr().out, "Stops a fit (1)")


WRONG = {
    "cut off": (lambda folder: write_cut(folder / "cat" / "cut.jpg"), "cut.jpg", "is damaged or cut off"),
    "no picture": (lambda folder: (folder / "dog" / "a.jpg").write_text("?"), "a.jpg", "is not a picture"),
    "too few": (lambda folder: (folder / "dog" / "good0.png").unlink(), "concepts[1].images", "2 pictures"),
    "caption": (lambda folder: (folder / "cat" / "good0.txt").write_text("a <mug>"), "good0.txt", "names <mug>"),
    "token cut": (
        lambda folder: (folder / "cat" / "good0.txt").write_text(f"{'dog ' * 80} <new0x> cat"), "good0.txt",
        "is so long",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", WRONG)
def test_what_fit_refuses(how: str, tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence = family(tmp_path, "cat", "dog")
    spoil, file, problem = WRONG[how]
    spoil(tmp_path)
    command = looked(tiny_base_model, sequence, tmp_path / "run")
    assert main(command) == 2
    stops = rows(capsys.readouterr().out, "Stops a fit (1)")
    assert file in stops
    assert problem in stops
    assert main(["fit", *command[1:]]) == 2
    assert problem in capsys.readouterr().err


def test_everything_is_said_at_once(tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = {"double": ["a <new0x> cat and a <nobody> dog"]}
    sequence = family(tmp_path, "cat", "dog", prompts=prompts)
    (tmp_path / "dog" / "good0.png").unlink()
    write_cut(tmp_path / "cat" / "cut.jpg")
    shutil.copy(tmp_path / "cat" / "good0.png", tmp_path / "dog" / "copy.jpg")
    more = ["--trainer.max_steps", "3", "--model.base_model", str(tmp_path), "--data.templates.style", "{word}"]
    (tmp_path / "dog" / "good1.png").unlink()
    assert main(looked(tiny_base_model, sequence, tmp_path / "run", *more)) == 2
    shown = capsys.readouterr().out
    stops = rows(shown, "Stops a fit (6)")
    for part in (
        "trainer.max_steps",
        "data.templates.style",
        "holds 2 pictures",
        "names <nobody>",
        "cut.jpg",
        "is not a diffusers folder",
    ):
        assert part in stops, part
    assert "cat/good0.png, dog/copy.jpg" in rows(shown, "Worth a look")
    assert "a PNG that is called .jpg" in rows(shown, "Nothing to do")
    assert (
        shown.splitlines()[-1]
        == "fit would refuse this; 1 thing is worth a look besides. Mend what stops it, and run the same command again."
    )


def test_tokens_that_the_base_model_knows(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = family(tmp_path, "cat", "dog")
    text = sequence.read_text("utf-8").replace("<new0x>", "<|endoftext|>").replace("<new1x>", "<cat>")
    sequence.write_text(text, "utf-8")
    command = looked(tiny_base_model, sequence, tmp_path / "run")
    assert main(command) == 2
    shown = capsys.readouterr().out
    assert "already has the token <|endoftext|>" in rows(shown, "Stops a fit (1)")
    assert "cat is a word that the base model knows" in rows(shown, "Nothing to do")
    assert main(["fit", *command[1:]]) == 2


def test_a_run_folder_need_not_be_named(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = family(tmp_path, "cat")
    command = looked(tiny_base_model, sequence, tmp_path / "run")
    place = command.index("--run")
    assert main(command[:place] + command[place + 2 :]) == 0
    shown = capsys.readouterr().out
    assert "--run runs/unnamed" in shown
    assert not Path("runs/unnamed").exists()
    # The command it ends with is whole.
    program, *words = shlex.split(shown.splitlines()[-1])
    assert [program, *words[:3]] == shlex.split(command_line(["fit"]))
    assert words[-2:] == ["--run", f"runs/{Sequence.read(sequence).name}"]
    assert main(["doctor", *words[3:]]) == 0


def test_all_that_a_fit_would_refuse_is_said_at_once(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = family(tmp_path, "cat", "dog")
    content = yaml.safe_load(sequence.read_text("utf-8"))
    content["concepts"][0]["settings"] = {"fast_learning_rate": 0.1}
    content["concepts"][1]["class_word"] = ""
    sequence.write_text(yaml.safe_dump(content), "utf-8")
    more = ["--stage_end.keep", "best", "--snapshots.steps", "[9999]", "--trainer.max_epochs", "7"]
    assert main([*looked(tiny_base_model, sequence, tmp_path / "run"), *more]) == 2
    stops = rows(capsys.readouterr().out, "Stops a fit")
    for said in ("class_word", "is not a learning rate of", "9999", "max_epochs"):
        assert said in stops, said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--data.bath_size", "3"], "Did you mean data.batch_size"),
        (["--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["stray"], "stray: belongs to no option"),
    ],
)
def test_a_configuration_that_cannot_be_read(
    more: list[str], said: str, tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = looked(tiny_base_model, family(tmp_path, "cat"), tmp_path / "run")
    assert main([*command, *more]) == 2
    shown = capsys.readouterr()
    assert said.replace(" does", ": does") in shown.err
    assert shown.out == ""


def test_settings_that_fit_refuses_when_it_makes_its_parts(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = family(tmp_path, "cat")
    more = ["--data.templates.animal", "a photo of a cat", "--seed_everything", "-1"]
    assert main(looked(tiny_base_model, sequence, tmp_path / "run", *more[:2])) == 2
    assert "without the token" in rows(capsys.readouterr().out, "Stops a fit (1)")
    assert main(looked(tiny_base_model, sequence, tmp_path / "run", *more[2:])) == 2
    assert "--seed_everything" in rows(capsys.readouterr().out, "Stops a fit (1)")


def test_a_job_needs_no_gpu_here(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name, answer in (("sbatch", "exit 0"), ("scontrol", "echo 'Slurmctld(primary) at head is UP'")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n", "utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    sequence = family(tmp_path, "cat")
    command = looked(tiny_base_model, sequence, tmp_path / "run", "--config", "configs/hardware/slurm.yaml")
    assert main(command) == 0
    notes = rows(capsys.readouterr().out, "Nothing to do")
    assert "the job's machine decides" in notes
    assert "Ask for a device with as much" in notes
    # Where SLURM does not answer, the run would have to start here.
    (tmp_path / "scontrol").write_text("#!/bin/sh\nexit 1\n", "utf-8")
    assert main(command) == 2
    shown = capsys.readouterr().out
    assert "GPU" in rows(shown, "Stops a fit")
    assert "cannot be reached" in rows(shown, "Worth a look")


def test_a_kind_that_is_misspelled_stands_in_the_table(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sequence = family(tmp_path, "cat", "dog")
    content = yaml.safe_load(sequence.read_text("utf-8"))
    content["concepts"][1]["kind"] = "animl"
    sequence.write_text(yaml.safe_dump(content), "utf-8")
    assert main(looked(tiny_base_model, sequence, tmp_path / "run")) == 2
    assert "animl" in rows(capsys.readouterr().out, "Stops a fit")
