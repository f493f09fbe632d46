"""Run folders for the exports' tests; exporting must leave them as they are."""

from pathlib import Path

import pytest

from tests.export.runs import write_run


@pytest.fixture(scope="session")
def run(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run folder of two concepts on the tiny Stable Diffusion; tests must not write into it."""
    return write_run(tmp_path_factory.mktemp("export") / "family", tiny_base_model)


@pytest.fixture(scope="session")
def xl_run(tiny_xl_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the same on the tiny SDXL."""
    return write_run(tmp_path_factory.mktemp("export") / "family_xl", tiny_xl_base_model)


@pytest.fixture(params=["run", "xl_run"])
def any_run(request: pytest.FixtureRequest) -> Path:
    """Returns each of both."""
    return request.getfixturevalue(request.param)
