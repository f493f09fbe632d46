"""The command table: help without heavy imports, and one sentence for a wrong word."""

import subprocess
import sys

import pytest

from cns_lightning.cli.help import FIT_HELP
from cns_lightning.cli.main import COMMANDS, main


def test_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_wrong_command_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["genrate"]) == 2
    assert capsys.readouterr().err == "genrate: is not a command. Did you mean generate\n"


@pytest.mark.parametrize("command", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_no_torch(command: list[str]) -> None:
    code = (
        "import sys\nfrom cns_lightning.cli.main import main\n"
        f"try:\n    main({command!r})\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'lightning', 'diffusers', 'transformers', 'gradio'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_short_help_names_keys_that_the_parser_knows(capsys: pytest.CaptureFixture[str]) -> None:
    named = [line.split()[0] for line in FIT_HELP.splitlines() if line.startswith("  --")]
    with pytest.raises(SystemExit):
        main(["fit", "--help-all"])
    known = capsys.readouterr().out
    assert len(named) >= 10
    assert all(f"{key} " in known or f"{key}.help" in known for key in named)


def test_help_all_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["fit", "--help-all"])
    assert left.value.code == 0
    assert "--samples.pictures" in capsys.readouterr().out
