"""`search` on the tiny model: as many settings for every method, the best one by the rule, as a file to stack."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from cns_lightning.cli.main import main
from cns_lightning.experiments.comparison import Comparison, Run
from cns_lightning.experiments.objective import covered
from cns_lightning.experiments.scoring_options import ScoringOptions
from cns_lightning.experiments.search import Search, as_text, as_yaml, has_curves, is_whole_only, objective, rows_of
from cns_lightning.runs.config import RunConfig
from cns_lightning.storage import read_json, write_json
from tests.runs.learning import write_sequence

REACH = {"clip_i": 0.99, "clip_t": 0.5}


def _write(path: Path, methods: dict[str, Any], **more: Any) -> Path:
    content = {"stack": ["configs/hardware/cpu.yaml"], "methods": methods, **more}
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_the_best_setting_is_the_one_the_rule_says(tiny_base_model: Path, tiny_judge: Path, tmp_path: Path) -> None:
    sequence = write_sequence(tmp_path / "one", ["cat"])
    rates = [0.001, 0.5]
    inversion = {
        "files": ["configs/methods/textual_inversion.yaml"],
        "grid": {"model.method.token_learning_rate": rates},
    }
    fit = {"steps": 2, "snapshots.steps": [1], "model.base_model": str(tiny_base_model), "data.batch_size": 2}
    config = _write(
        tmp_path / "search.yaml",
        {"textual_inversion": inversion},
        sets=[str(sequence)],
        fit={**fit, "samples.pictures": 0},
        test={"pictures": 1, "steps": 2, "matrix_pictures": 0, "judge": str(tiny_judge)},
        widen=1,
        per_round=1,
        reach={"sequence": {"single": REACH}},
    )
    out = tmp_path / "out"
    command = ["search", "--config", str(config), "--out", str(out), "--jobs", "2"]
    assert main(command) == 0
    table = (out / "search.csv").read_bytes()
    rows = list(csv.DictReader((out / "search.csv").open(encoding="utf-8")))
    # Of two values the best is always at an edge: one round follows.
    assert sorted((row["setting"], row["round"]) for row in rows) == [("0", "0"), ("1", "0"), ("2", "1")]
    start = read_json(out / "class_word" / "sequence" / "scores.json")["curve_start"]
    tried = {}
    for row in rows:
        run = out / "textual_inversion" / f"setting-0{row['setting']}" / "sequence" / "seed-0"
        curve = read_json(run / "evaluation" / "scores.json")["curve"]
        by_steps = {str(point["steps"]): covered(point, start, {"single": REACH}) for point in curve}
        assert float(row["objective"]) == pytest.approx(max(by_steps.values()))
        assert by_steps[row["best_steps"]] == max(by_steps.values())
        tried[row["setting"]] = yaml.safe_load((run / "config.yaml").read_text())["whole"]["model"]["method"][
            "init_args"
        ]
        assert f"={tried[row['setting']]['token_learning_rate']}" in row["values"]
    assert [row["setting"] for row in rows] == sorted(tried, key=lambda each: -float(_of(rows, each)["objective"]))
    ahead = max(("0", "1"), key=lambda each: float(_of(rows, each)["objective"]))
    assert tried["2"]["token_learning_rate"] == pytest.approx({"0": 2e-6, "1": 250}[ahead])
    assert rows[0]["at_edge"] in ("no", "model.method.token_learning_rate")
    assert [row["at_edge"] for row in rows[1:]] == ["", ""]
    best = yaml.safe_load((out / "best" / "textual_inversion.yaml").read_text())
    chosen = tried[rows[0]["setting"]]["token_learning_rate"]
    assert best == {"model": {"method": {"init_args": {"token_learning_rate": chosen}}}}
    assert "share of what can be reached" in (out / "search.md").read_text("utf-8")
    assert main(command) == 0
    assert (out / "search.csv").read_bytes() == table


def _of(rows: list[dict[str, str]], setting: str) -> dict[str, str]:
    return next(row for row in rows if row["setting"] == setting)


def test_without_snapshots_the_objective_is_that_of_the_end(tmp_path: Path) -> None:
    search = Search(
        Comparison((), {}), {"cns": [{"rate": 1.0}, {"rate": 2.0}]}, {"cns": {"rate": [1.0, 2.0]}}, ends=(2,)
    )
    runs = []
    for number, image in enumerate((0.2, 0.4)):
        folder = tmp_path / str(number)
        groups = {"single": {"clip_i": image, "clip_t": 0.2}, "triple": {"clip_i": 0.1, "clip_t": 0.2}}
        write_json(folder / "evaluation" / "scores.json", {"groups": groups})
        runs.append((number, Run("cns", "set", 0, folder, "set.yaml", (), (), ScoringOptions())))
    assert not has_curves(runs)
    rows = rows_of(search, runs)
    assert [(row["setting"], row["objective"], row["at_edge"]) for row in rows] == [
        (1, pytest.approx(0.25), "rate"), (0, pytest.approx(0.15), ""),
    ]  # fmt: skip
    assert "the runs have no snapshots" in as_text(rows)


def test_an_unequal_budget_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods: dict[str, Any] = {
        name: {"files": [f"configs/methods/{name}.yaml"], "grid": {"model.method.token_learning_rate": rates}}
        for name, rates in {"cns": [1.0, 2.0], "textual_inversion": [1.0]}.items()
    }
    config = _write(tmp_path / "search.yaml", methods, set=["a"])
    assert main(["search", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "try different numbers of settings (cns 2, textual_inversion 1). Let all try 2" in said
    assert "set: is an unknown key" in said
    _write(config, {"cns": ["configs/methods/cns.yaml"]})
    assert main(["search", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    assert "methods.cns: needs the keys files and grid" in capsys.readouterr().err
    words = {"files": ["configs/methods/cns.yaml"], "grid": {"model.method.learning_rate": ["1e-4", "1e-3"]}}
    _write(config, {"cns": words}, widen=1, per_round=0)
    assert main(["search", "--config", str(config), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "cannot be widened" in said
    assert "per_round: is 0 where a whole number of at least 1 is needed" in said


def test_shipped_search_gives_every_method_the_same_budget() -> None:
    search = Search.read(Path("configs/experiments/search.yaml"))
    assert {len(tried) for tried in search.settings.values()} == {4}
    assert (search.widen, search.per_round) == (1, 2)
    assert len(search.settings) == 7


def test_objective_and_file_by_hand() -> None:
    assert objective({"single_clip_i": 0.5, "multi_clip_i": 0.2}) == pytest.approx(0.35)
    assert objective({"single_clip_i": 0.5, "multi_clip_i": None}) == 0.5
    written = yaml.safe_load(as_yaml({"model.method.rank": 3, "data.steps": 5}))
    assert written == {"model": {"method": {"init_args": {"rank": 3}}}, "data": {"steps": 5}}
    assert yaml.safe_load(as_yaml({"model.method.init_args.rank": 3, "data.steps": 5})) == written


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("cns.ConceptNeuronSelection", {}, False),
        ("cns.ConceptNeuronSelection", {"learning_rate_falls": True}, True),
        ("cns.ConceptNeuronSelection", {"token_first": 0.5}, True),
        ("mix_of_show.MixOfShow", {}, True),
        ("textual_inversion.TextualInversion", None, False),
    ],
)
def test_snapshots_of_falling_rates_are_no_shorter_runs(
    name: str, given: dict[str, Any] | None, expected: bool, tmp_path: Path
) -> None:
    method = {"class_path": f"cns_lightning.methods.{name}", "init_args": given}
    sequence = {"name": "none", "concepts": [], "prompts": {}}
    RunConfig(tmp_path / "config.yaml", {}, sequence, {"model": {"method": method}}).write()
    assert is_whole_only(Run("m", "set", 0, tmp_path, "set.yaml", (), (), ScoringOptions())) == expected
