"""`search` on the tiny model: as many settings for every method, the best one by the rule, as a file to stack."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from cns_lightning.cli.main import main
from cns_lightning.search import Search, as_yaml, objective
from cns_lightning.storage import read_json
from tests.runs.learning import write_sequence


def _write(path: Path, methods: dict[str, Any], **more: Any) -> Path:
    content = {"stack": ["configs/hardware/cpu.yaml"], "methods": methods, **more}
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_the_best_setting_is_the_one_the_rule_says(tiny_base_model: Path, tiny_judge: Path, tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path / "one", ["cat"])
    inversion = {
        "files": ["configs/methods/textual_inversion.yaml"],
        "grid": {"model.method.token_learning_rate": [0.001, 0.5]},
    }
    config = _write(
        tmp_path / "search.yaml",
        {"textual_inversion": inversion},
        sets=[str(sequence)],
        fit=["--steps", 2, "--model.base_model", str(tiny_base_model), "--data.batch_size", 2, "--samples.pictures", 0],
        test=["--pictures", 1, "--steps", 2, "--matrix-pictures", 0, "--judge", str(tiny_judge)],
    )
    out = tmp_path / "out"
    assert main(["search", "--config", str(config), "--out", str(out), "--jobs", "2"]) == 0
    rows = list(csv.DictReader((out / "search.csv").open(encoding="utf-8")))
    assert {row["setting"] for row in rows} == {"0", "1"}
    for row in rows:
        run = out / "textual_inversion" / f"setting-0{row['setting']}" / "sequence" / "seed-0"
        single = read_json(run / "evaluation" / "scores.json")["groups"]["single"]["clip_i"]
        assert float(row["objective"]) == pytest.approx(single), "there are no prompts with several concepts"
        rate = yaml.safe_load((run / "config.yaml").read_text())["whole"]["model"]["method"]["init_args"]
        assert f"={rate['token_learning_rate']}" in row["values"]
    assert float(rows[0]["objective"]) >= float(rows[1]["objective"])
    best = yaml.safe_load((out / "best" / "textual_inversion.yaml").read_text())
    chosen = inversion["grid"]["model.method.token_learning_rate"][int(rows[0]["setting"])]  # type: ignore[index]
    assert best == {"model": {"method": {"init_args": {"token_learning_rate": chosen}}}}


def test_an_unequal_budget_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods: dict[str, Any] = {
        name: {"files": [f"configs/methods/{name}.yaml"], "grid": {"model.method.token_learning_rate": rates}}
        for name, rates in {"cns": [1.0, 2.0], "textual_inversion": [1.0]}.items()
    }
    config = _write(tmp_path / "search.yaml", methods, set=["a"])
    assert main(["search", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "try different numbers of settings (cns 2, textual_inversion 1). Let all try 2" in said
    assert "set: is no known key" in said
    _write(config, {"cns": ["configs/methods/cns.yaml"]})
    assert main(["search", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    assert "methods.cns: needs the keys files and grid" in capsys.readouterr().err


def test_shipped_search_gives_every_method_the_same_budget() -> None:
    search = Search.read(Path("configs/experiments/search.yaml"))
    assert {len(tried) for tried in search.settings.values()} == {6}
    assert len(search.settings) == 7


def test_objective_and_file_by_hand() -> None:
    assert objective({"single_clip_i": 0.5, "multi_clip_i": 0.2}) == pytest.approx(0.35)
    assert objective({"single_clip_i": 0.5, "multi_clip_i": None}) == 0.5
    written = yaml.safe_load(as_yaml({"model.method.rank": 3, "data.steps": 5}))
    assert written == {"model": {"method": {"init_args": {"rank": 3}}}, "data": {"steps": 5}}
