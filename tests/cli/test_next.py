"""Every command ends with the one that comes next, and that one works as it is printed."""

import shlex
import sys
from pathlib import Path

import pytest

from cns_lightning.cli.main import main
from cns_lightning.user_files import command_line
from tests.runs.learning import arguments, write_sequence


def next_words(said: str) -> list[str]:
    """Returns the words of the command that a command ends with, without those of the program."""
    program = command_line([])
    (line,) = (line for line in said.splitlines() if f"next: {program}" in line)
    return shlex.split(line.partition("next: ")[2])[len(shlex.split(program)) :]


def test_from_fit_to_an_export(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = arguments(tiny_base_model, write_sequence(tmp_path / "my photos", ["cat"]), Path("my run"))
    assert main(words) == 0
    after = next_words(capsys.readouterr().err)
    assert after[:3] == ["generate", "--run", str(tmp_path / "my run")]
    for again in (words, ["report", "--run", "my run"]):
        capsys.readouterr()
        assert main(again) == 0
        assert next_words("".join(capsys.readouterr()))[0] == "generate", again[0]
    assert main([*after, "--steps", "1"]) == 0
    export = next_words(capsys.readouterr().err)
    assert main(export) == 0
    assert (tmp_path / "exports" / "my run" / "README.md").exists()
    assert "next: copy " in capsys.readouterr().out


def test_a_program_is_called_as_this_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "venv" / "bin"
    elsewhere = tmp_path / "elsewhere"
    for each in (place, elsewhere):
        each.mkdir(parents=True)
    for name in ("python", "cns-lightning"):
        (place / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(place / "python"))
    for called, short, relative in (
        ("somewhere/cns_lightning/__main__.py", "python -m cns_lightning", "venv/bin/python -m cns_lightning"),
        (str(place / "cns-lightning"), "cns-lightning", "venv/bin/cns-lightning"),
    ):
        monkeypatch.setattr(sys, "argv", [called])
        monkeypatch.setenv("PATH", "/nowhere")
        assert command_line(["ui", "--run", "a b"]) == f"{relative} ui --run 'a b'"
        monkeypatch.setenv("PATH", str(place))
        assert command_line(["ui", "--run", "a b"]) == f"{short} ui --run 'a b'"
        monkeypatch.chdir(elsewhere)
        monkeypatch.setenv("PATH", "/nowhere")
        assert command_line(["ui"]).startswith(str(place))
        monkeypatch.chdir(tmp_path)
