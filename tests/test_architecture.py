"""Rules of the house that are not import rules."""

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
    found = {"cns_lightning.configs", "cns_lightning.callbacks"}
    for path in (ROOT / "cns_lightning").glob("**/__init__.py"):
        found.add(".".join(path.parent.relative_to(ROOT).parts))
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
    light = (
        *("cli.main", "cli.help", "cli.launch", "errors", "progress"),
        *("sequences.sequence", "runs.folder", "slurm.script"),
    )
    imports = "; ".join(f"import cns_lightning.{name}" for name in light)
    code = f"{imports}; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_callbacks_are_reached_through_the_package_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import callbacks"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "import cns_lightning.callbacks" in done.stderr


def test_methods_do_not_know_each_other() -> None:
    names = {path.stem for path in (ROOT / "configs" / "methods").glob("*.yaml")}
    for name in names:
        tree = ast.parse((ROOT / "cns_lightning" / "methods" / f"{name}.py").read_text("utf-8"))
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not imported & {f"cns_lightning.methods.{other}" for other in names - {name}}


def test_few_modules_stand_in_no_room() -> None:
    loose = {path.stem for path in (ROOT / "cns_lightning").glob("*.py")} - {"__init__", "__main__"}
    assert len(loose) <= 8, loose


BELOW_THE_MODULE = ("data", "diffusion", "evaluation", "methods", "neurons", "registry", "runs", "sequences", "slurm")


@pytest.mark.parametrize("room", BELOW_THE_MODULE)
def test_nothing_below_the_module_reaches_up(room: str) -> None:
    # `training` holds what Lightning itself is given, a strategy for example.
    for path in (ROOT / "cns_lightning" / room).glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        named = {node.id for node in nodes if isinstance(node, ast.Name)} | {
            node.attr for node in nodes if isinstance(node, ast.Attribute)
        }
        named |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        assert not named & {"trainer", "lightning_module", "pl_module"}, path
