"""The uninterrupted run in two processes that stopped ones are compared with."""

from pathlib import Path

import pytest

from tests.runs.learning import write_sequence
from tests.runs.processes import two_processes


@pytest.fixture(scope="session")
def pair(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Returns base model, sequence file and run folder of an uninterrupted run in two processes."""
    folder = tmp_path_factory.mktemp("processes")
    sequence = write_sequence(folder, ["cat", "dog"])
    assert two_processes(tiny_base_model, sequence, folder / "run")[0] == 0
    return tiny_base_model, sequence, folder / "run"
