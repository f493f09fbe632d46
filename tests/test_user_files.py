"""Configuration files that ship are found by their names wherever a command runs."""

from pathlib import Path

import pytest

from cns_lightning.cli.main import main
from cns_lightning.sequences.sequence import sequence_path
from cns_lightning.user_files import configs_folder, shipped, with_names_of_shipped, with_shipped_configs


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs every test in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("given", ["configs/methods/cns.yaml", "methods/cns.yaml", "methods/cns"])
def test_every_spelling_names_the_file_that_ships(given: str) -> None:
    assert shipped(given) == configs_folder() / "methods" / "cns.yaml"


def test_a_users_own_file_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "configs" / "methods" / "cns.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert shipped("configs/methods/cns.yaml") == Path("configs/methods/cns.yaml")
    assert shipped("methods/cns") == configs_folder() / "methods" / "cns.yaml"


@pytest.mark.parametrize("given", ["", "configs", "configs/nothing.yaml", "../configs/methods/cns.yaml", "methods"])
def test_what_does_not_ship_stays_as_it_is(given: str) -> None:
    assert shipped(given) == Path(given)


def test_every_way_to_give_a_configuration_is_known() -> None:
    path = str(configs_folder() / "hardware" / "cpu.yaml")
    words = ["--config", "hardware/cpu", "-c", "hardware/cpu", "--config=hardware/cpu", "--out", "hardware/cpu"]
    assert with_shipped_configs(words) == ["--config", path, "-c", path, f"--config={path}", "--out", "hardware/cpu"]
    assert with_shipped_configs(["--config", "--config="]) == ["--config", "--config="]


def test_a_command_for_a_person_has_names_again() -> None:
    words = ["--config", "methods/cns", "--config=hardware/cpu", "--model.method.init_args.x=a=b", "--run", "/tmp/run"]
    assert with_names_of_shipped(with_shipped_configs(words)) == words


def test_sequences_that_ship() -> None:
    expected = configs_folder() / "sequences" / "miniature_set1.yaml"
    assert sequence_path("miniature_set1") == sequence_path("configs/sequences/miniature_set1.yaml") == expected
    assert sequence_path("miniature_set1.yaml") == Path("miniature_set1.yaml")


def test_a_file_that_is_nowhere_is_named_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "configs/methods/cms.yaml", "--run", "run"]) == 2
    assert "configs/methods/cms.yaml: does not exist" in capsys.readouterr().err
