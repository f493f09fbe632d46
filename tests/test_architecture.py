"""Rules of the house that are no import rules."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SOURCES = sorted([*(ROOT / "cns_lightning").glob("**/*.py"), *(ROOT / "callbacks").glob("*.py")])


def test_package_list_is_complete() -> None:
    found = {"cns_lightning", "cns_lightning.configs", "cns_lightning.callbacks"}
    for path in (ROOT / "cns_lightning").glob("*/__init__.py"):
        found.add(f"cns_lightning.{path.parent.name}")
    assert sorted(found) == PROJECT["tool"]["setuptools"]["packages"]


@pytest.mark.parametrize("name", ["callbacks", "configs"])
def test_links_point_home(name: str) -> None:
    assert os.readlink(ROOT / "cns_lightning" / name) == f"../{name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_say_what_they_are(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text))


def test_light_modules_import_no_torch() -> None:
    light = ("cli.main", "cli.help", "errors", "sequence", "run_folder", "progress", "batch_script", "cli.launch")
    imports = "; ".join(f"import cns_lightning.{name}" for name in light)
    code = f"{imports}; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_callbacks_are_reached_through_the_package_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import callbacks"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "import cns_lightning.callbacks" in done.stderr


def test_every_method_is_under_the_independence_contract() -> None:
    contracts = {each["name"]: each for each in PROJECT["tool"]["importlinter"]["contracts"]}
    methods = {path.stem for path in (ROOT / "configs" / "methods").glob("*.yaml")}
    assert contracts["methods do not know each other"]["modules"] == sorted(
        f"cns_lightning.methods.{name}" for name in methods
    )
