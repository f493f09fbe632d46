"""Every shipped stack of configuration files is one that `fit` accepts."""

from pathlib import Path

import pytest
import yaml

from cns_lightning.cli.demo import parser
from cns_lightning.configuration.parser import checked_configuration
from cns_lightning.experiments.comparison import Comparison, as_arguments
from cns_lightning.experiments.search import Search
from cns_lightning.methods.discovery import method_configs

EXPERIMENTS = Path("configs/experiments")
COMPARISONS = sorted(set(EXPERIMENTS.glob("*.yaml")) - {EXPERIMENTS / "demo.yaml", EXPERIMENTS / "search.yaml"})


def _accepted(stack: tuple[str, ...], run: Path, *more: str) -> None:
    words = [word for file in stack for word in ("--config", file)]
    config = checked_configuration([*words, "--data.sequence", "miniature_set1", "--run", str(run), *more])
    assert config.model.method.class_path.startswith("cns_lightning.methods.")


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_comparisons(path: Path, tmp_path: Path) -> None:
    comparison = Comparison.read(path)
    assert comparison.methods
    if path.stem.startswith("compare"):
        assert set(comparison.methods) == {each.stem for each in Path("configs/methods").glob("*.yaml")}
    for name, files in comparison.methods.items():
        values = as_arguments(comparison.values.get(name, {}))
        _accepted((*comparison.stack, *files), tmp_path / name, *as_arguments(comparison.fit), *values)


def test_search(tmp_path: Path) -> None:
    search = Search.read(EXPERIMENTS / "search.yaml")
    for name, tried in search.settings.items():
        stack = (*search.comparison.stack, *search.comparison.methods[name])
        _accepted(stack, tmp_path / name, *as_arguments(search.comparison.fit | tried[-1]))


def test_all_methods_are_compared_with_their_rates_of_the_miniature() -> None:
    comparison = Comparison.read(EXPERIMENTS / "compare.yaml")
    assert set(comparison.methods) == set(method_configs())
    rates = {path.stem for path in Path("configs/miniature").glob("*.yaml")} - {"data"}
    assert rates <= set(method_configs())
    for name, files in comparison.methods.items():
        assert [Path(file).parent.name for file in files] == ["miniature" if name in rates else "methods"]


def test_the_help_of_the_demo_says_its_steps() -> None:
    steps = yaml.safe_load((EXPERIMENTS / "demo.yaml").read_text("utf-8"))["data"]["steps"]
    assert f"optimizer steps of every concept ({steps})" in " ".join(parser().format_help().split())
