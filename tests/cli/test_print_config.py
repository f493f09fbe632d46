"""``--print_config``: the whole configuration, from which the same run can be made again."""

from pathlib import Path

import pytest
import yaml

from cns_lightning.cli.main import main
from cns_lightning.configuration.continuation import comparable
from cns_lightning.configuration.parser import checked_configuration

STACK = [
    *("--config", "configs/base/miniature.yaml", "--config", "configs/methods/cns.yaml"),
    *("--config", "configs/hardware/cpu.yaml", "--data.sequence", "miniature_set1"),
]


def test_what_fit_prints_is_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--run", str(tmp_path / "run"), "--steps", "7", "--samples.pictures", "3"]
    with pytest.raises(SystemExit) as left:
        main(["fit", *STACK, *more, "--print_config"])
    assert left.value.code in (0, None)
    printed = tmp_path / "whole.yaml"
    printed.write_text(capsys.readouterr().out, "utf-8")
    assert not (tmp_path / "run").exists()
    again = checked_configuration(["--config", str(printed)])
    assert comparable(again) == comparable(checked_configuration([*STACK, *more]))
    assert (again.data.steps, again.samples.pictures) == (7, 3)


def test_compare_prints_what_every_method_is_run_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", "--config", "configs/experiments/compare_quick.yaml", "--out", str(tmp_path / "out")]
    assert main([*words, "--print_config"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    kinds = [each["model"]["method"]["class_path"].rsplit(".", 1)[-1] for each in documents]
    assert len(kinds) == 8
    assert {"ConceptNeuronSelection", "CustomDiffusion"} <= set(kinds)
    assert all(each["data"]["batch_size"] == 4 and each["steps"] == 100 for each in documents)
    assert not (tmp_path / "out").exists()
