"""What is released: sdist and wheel hold everything, and the wheel works where there is no repository."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
VERSION = PROJECT["project"]["version"]
WHEEL = f"cns_lightning-{VERSION}-py3-none-any.whl"
CARRIED = ("cns_lightning", "callbacks", "configs", "pyproject.toml", "README.md", "LICENSE")
FILES = {"*.py", "*.yaml", "*.txt", "*.png", "*.md", "*.html", "*.js", "*.css", "*.json", "*.safetensors", "py.typed"}
"""Endings of what the package is made of."""
OUT_OF_REACH = ("No matching distribution", "Could not find a version", "Connection", "Temporary failure", "timed out")
"""What pip says when it reaches no index."""


def test_the_version_is_the_same_everywhere() -> None:
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)[1] == VERSION  # type: ignore[index]
    assert f"version: {VERSION}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_every_python_that_is_promised_is_named() -> None:
    classifiers = PROJECT["project"]["classifiers"]
    assert [each for each in classifiers if "Python :: 3." in each] == [
        f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)
    ]
    assert PROJECT["project"]["requires-python"] == ">=3.11"


def package_files() -> dict[str, bytes]:
    """Returns what the wheel must hold, by its name there; callbacks/ and configs/ through the links."""
    package = ROOT / "cns_lightning"
    found = {}
    for folder, _, names in os.walk(package, followlinks=True):
        for path in (Path(folder, name) for name in names):
            if "__pycache__" not in path.parts and any(path.match(pattern) for pattern in FILES):
                found[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Returns the sdist, the wheel that was built from it, and the one that was built from the repository."""
    folder = tmp_path_factory.mktemp("release")
    tree = folder / "tree"
    # A copy: building leaves folders behind, and would take old ones up again.
    tree.mkdir()
    for name in CARRIED:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tree / name)
    # Without isolation: the tests' own setuptools, no network.
    for arguments in (["--outdir", "through"], ["--wheel", "--outdir", "direct"]):
        words = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", *arguments]
        done = subprocess.run([*words, "."], cwd=tree, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    sdist = tree / "through" / f"cns_lightning-{VERSION}.tar.gz"
    return sdist, tree / "through" / WHEEL, tree / "direct" / WHEEL


@pytest.mark.slow
def test_sdist_and_both_wheels_hold_everything(built: tuple[Path, Path, Path]) -> None:
    sdist, *wheels = built
    expected = package_files()
    assert {"cns_lightning/configs/base/sd15.yaml", "cns_lightning/callbacks/mask_freezing.py"} <= expected.keys()
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            inside = {name: wheel.read(name) for name in wheel.namelist() if not name.startswith("cns_lightning-")}
            entry = wheel.read(f"cns_lightning-{VERSION}.dist-info/entry_points.txt").decode()
        assert inside == expected
        assert "cns-lightning = cns_lightning.cli.main:main" in entry
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "configs/base/sd15.yaml", "callbacks/mask_freezing.py"} <= names


@pytest.fixture(scope="module")
def elsewhere(built: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of an environment with the wheel and what it asks for, outside the repository.

    Without an index to install from, libraries are the tests' own, through a path file: a dependency that
    pyproject.toml forgets would not be missed then.
    """
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    words = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    asked = ["--constraint", str(ROOT / "constraints.txt"), str(built[1])]
    done = subprocess.run([*words, *asked], capture_output=True, text=True, check=False)
    if done.returncode and any(said in done.stderr for said in OUT_OF_REACH):
        own = next(each for each in sys.path if each.endswith("site-packages"))
        (place,) = (folder / "lib").glob("python*/site-packages")
        (place / "libraries.pth").write_text(f"{own}\n", "utf-8")
        done = subprocess.run(
            [*words, "--no-index", "--no-deps", "--ignore-installed", str(built[1])],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def call(environment: Path, folder: Path, *words: str) -> str:
    """Runs an installed command in a folder and returns what it printed."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(environment / "bin" / words[0]), *words[1:]],
        cwd=folder, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_demo_runs_from_an_installed_wheel(elsewhere: Path, tmp_path: Path) -> None:
    where = call(elsewhere, tmp_path, "python", "-c", "import cns_lightning; print(cns_lightning.__file__)").strip()
    assert Path(where).is_relative_to(elsewhere)
    assert call(elsewhere, tmp_path, "cns-lightning", "--version").strip() == VERSION
    small = ["--samples.pictures", "1", "--samples.steps", "2", "--monitor.pictures", "0"]
    said = call(elsewhere, tmp_path, "cns-lightning", "demo", "--steps", "2", *small)
    report = Path("runs", "demo", "report.html")
    assert said.splitlines()[-1] == f"report: {report}"
    assert (tmp_path / report).stat().st_size > 10_000
    assert (tmp_path / "runs" / "demo" / "generated.png").is_file()
    assert len(list((tmp_path / "runs" / "demo" / "registry").glob("0*.safetensors"))) == 7
    # The commands of README, as they stand there, without the repository's folder.
    stack = [f"--config=configs/{name}.yaml" for name in ("base/miniature", "methods/cns", "hardware/cpu")]
    sequence = ["--data.sequence", "configs/sequences/miniature_set1.yaml"]
    assert "Nothing stops a fit" in call(
        elsewhere, tmp_path, "cns-lightning", "doctor", *stack, *sequence, "--run", "runs/x"
    )
    printed = call(
        elsewhere, tmp_path, "cns-lightning", "compare", "--config", "configs/experiments/compare_quick.yaml",
        "--out", "runs/y", "--print_config",
    )  # fmt: skip
    assert printed.count("\nseed_everything: 0\n") == 8  # seven methods, and each concept alone
    assert not (tmp_path / "runs" / "y").exists()
