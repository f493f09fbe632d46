"""Wrong comparison and search files: one message that names the key, exit code 2, nothing written."""

from pathlib import Path

import pytest
import yaml

from cns_lightning.cli.main import main
from cns_lightning.errors import UserError
from cns_lightning.experiments import preflight
from cns_lightning.experiments.scoring_options import ScoringOptions
from tests.runs.learning import write_sequence

CNS = "configs/methods/cns.yaml"
RIGHT = {
    "stack": ["configs/base/miniature.yaml", "configs/hardware/cpu.yaml"],
    "methods": {"cns": [CNS]},
    "sets": ["miniature_set1"],
}
SEARCH = {**RIGHT, "methods": {"cns": {"files": [CNS], "grid": {"steps": [1, 2]}}}}


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"stack": 3}, "stack: is 3"),
        ({"stack": "configs/hardware/cpu.yaml"}, "stack: is 'configs/hardware/cpu.yaml'"),
        ({"stack": [{"a": "b"}]}, "stack: is [{"),
        ({"stack": ["configs/hardware"]}, "stack: configs/hardware: there is no such file"),
        ({"methods": [CNS]}, "methods: is ["),
        ({"methods": None}, "methods: is missing"),
        ({"methods": {"cns": [1]}}, "methods.cns: 1: there is no such file"),
        ({"methods": {1: [CNS]}}, "methods.1: is not a name"),
        ({"methods": {"cns": {"files": [CNS], "values": [1]}}}, "methods.cns.values: is [1]"),
        ({"methods": {"cns": {"file": [CNS]}}}, "methods.cns.file: is an unknown key"),
        ({"seeds": 3}, "seeds: is 3"),
        ({"seeds": [0, 0]}, "seeds: is [0, 0]"),
        ({"sets": "miniature_set1"}, "sets: is 'miniature_set1'"),
        ({"sets": None}, "sets: no sequence is named"),
        ({"sets": ["miniature_set1", "miniature_set1"]}, "has the name of another set"),
        ({"fit": 3}, "fit: is 3"),
        ({"fit": {"stpes": 100}}, "compare.yaml: cns: command line: stpes"),
        ({"fit": {"steps": 0}, "alone": "cns"}, "steps: is 0, at least 1 is needed"),
        ({"fit": ["--steps", 1]}, "compare.yaml: fit: is ['--steps', 1] where names with values are needed"),
        ({"fit": {"seed_everything": 3}}, "fit.seed_everything: is said by seeds, for every run. Use seeds"),
        ({"fit": {"data.sequence": "miniature_set2"}}, "fit.data.sequence: is said by sets"),
        (
            {"methods": {"cns": {"files": [CNS], "values": {"run": "runs/a"}}}},
            "methods.cns.values.run: is said by --out",
        ),
        ({"test": {"device": "cuda:7"}}, "compare.yaml: test.device: cuda:7 cannot be used here"),
        ({"test": {"pictures": 0}}, "compare.yaml: test.pictures: is 0, greater than or equal to 1 is needed"),
        ({"test": {"guidance": "high"}}, "compare.yaml: test.guidance: is 'high', a valid number is needed"),
        ({"test": {"picturs": 1}}, "compare.yaml: test.picturs: is an unknown key"),
        ({"test": {"judge": "nowhere/at/all"}}, "compare.yaml: test.judge: nowhere/at/all cannot be loaded"),
    ],
)
def test_wrong_comparison(
    wrong: dict[str, object], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump({**RIGHT, **wrong}), "utf-8")
    assert main(["compare", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    assert key in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("grid", "key"),
    [([1], "grid: is [1]"), ({"steps": 3}, "grid.steps: is 3"), ({"steps": []}, "grid.steps: lists no value"),
     ({"steps": "12"}, "grid.steps: is '12'"), ({"seed_everything": [1]}, "grid.seed_everything: is said by seeds"),
      ({"model.method.rate": [1]}, "search.yaml: cns: command line: rate")],
)  # fmt: skip
def test_wrong_search(grid: object, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump({**SEARCH, "methods": {"cns": {"files": [CNS], "grid": grid}}}), "utf-8")
    assert main(["search", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    assert key in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_wrong_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "search.yaml"
    reach = {"a": {"single": {"clip_i": "x"}, "double": {}}, "b": 3}
    methods = {"cns": {"files": [CNS], "grid": {"steps": [1]}}}
    path.write_text(yaml.safe_dump({**SEARCH, "methods": methods, "reach": reach}), "utf-8")
    assert main(["search", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    for part in (
        "reach.a.single.clip_i: is 'x' where a number is needed",
        "reach.a.single.clip_t: is missing",
        "reach.a.double",
        "reach.b",
    ):
        assert part in said


def test_prompts_that_could_not_be_scored(tiny_judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence = write_sequence(tmp_path / "two", ["cat", "dog"])
    path = tmp_path / "compare.yaml"
    path.write_text(yaml.safe_dump({**RIGHT, "sets": [str(sequence)], "alone": "cns"}), "utf-8")
    command = ["compare", "--config", str(path), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "no prompt names <new2>, which is also trained alone" in capsys.readouterr().err
    content = yaml.safe_load(sequence.read_text("utf-8"))
    sequence.write_text(yaml.safe_dump({**content, "prompts": {}}), "utf-8")
    assert main(command) == 2
    assert "prompts.single: is empty" in capsys.readouterr().err
    right = tmp_path / "right.yaml"
    right.write_text(yaml.safe_dump({**RIGHT, "test": {"judge": str(tiny_judge)}}), "utf-8")
    assert main(["compare", "--config", str(right), "--out", str(right)]) == 2
    assert f"--out {right}: cannot be written to" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main([*command, "--jobs", "-1"])
    assert left.value.code == 2


def test_every_set_is_looked_at(tiny_judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [write_sequence(tmp_path / name, ["cat"]) for name in ("one", "two")]
    content = yaml.safe_load(sets[1].read_text("utf-8"))
    content["concepts"][0]["settings"] = {"text_learning_rate": 1.0e-4}  # a rate that CNS does not have
    other = sets[1].with_name("other.yaml")
    other.write_text(yaml.safe_dump(content), "utf-8")
    path = tmp_path / "compare.yaml"
    given = {**RIGHT, "sets": [str(sets[0]), str(other)], "test": {"judge": str(tiny_judge)}}
    path.write_text(yaml.safe_dump(given), "utf-8")
    assert main(["compare", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "text_learning_rate" in capsys.readouterr().err


def test_every_run_sees_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "available_device", lambda name: name or "cuda")
    for test, said in (
        (ScoringOptions(device="cuda:1"), "test.device: is cuda:1, and every run sees one GPU"),
        (ScoringOptions(devices=2), "test.devices: is 2, and every run sees one GPU"),
    ):
        with pytest.raises(UserError, match=said):
            preflight.check_devices(tmp_path, test)
    preflight.check_devices(tmp_path, ScoringOptions(device="cuda:0", devices=1))
    preflight.check_devices(tmp_path, ScoringOptions(device="cpu", devices=2))
