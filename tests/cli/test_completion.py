"""``completion``: what a real bash completes with the script, and what is said where shtab is missing."""

import shutil
import subprocess
from pathlib import Path

import pytest

from cns_lightning.cli.main import COMMANDS, main

pytest.importorskip("shtab")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the script for bash."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert main(["completion", "bash"]) == 0
    path = tmp_path_factory.mktemp("completion") / "cns-lightning"
    path.write_text(shown.getvalue(), "utf-8")
    return path


def completed(script: Path, folder: Path, *words: str) -> set[str]:
    """Returns what bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in ("cns-lightning", *words))
    code = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
        'COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}; _shtab_cns_lightning; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_choices_and_files(script: Path, tmp_path: Path) -> None:
    (tmp_path / "family.yaml").touch()
    assert completed(script, tmp_path, "") >= set(COMMANDS)
    assert completed(script, tmp_path, "gen") == {"generate"}
    assert completed(script, tmp_path, "generate", "--reg") == {"--region"}
    assert completed(script, tmp_path, "export", "--format", "d") == {"diffusers"}
    assert "--model.method" in completed(script, tmp_path, "fit", "--model.m")
    assert "--samples.every_steps" in completed(script, tmp_path, "doctor", "--samples.e")
    assert "family.yaml" in completed(script, tmp_path, "fit", "--config", "fam")


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_get_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in COMMANDS)
    if shutil.which(shell) is not None and shell != "tcsh":
        assert subprocess.run([shell, "-n"], input=said, text=True, check=False, capture_output=True).returncode == 0


def test_shtab_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("cns_lightning.cli.completion.find_spec", lambda name: None)
    assert main(["completion", "bash"]) == 2
    assert "not installed. Install it: pip install" in capsys.readouterr().err
