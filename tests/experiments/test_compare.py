"""`compare` on the tiny model: the table is that of the runs' own files, and a second call repeats nothing."""

import csv
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cns_lightning.cli.main import main
from cns_lightning.configuration.continuation import comparable
from cns_lightning.configuration.parser import checked_configuration
from cns_lightning.data.images import read_concept_pictures
from cns_lightning.errors import UserError
from cns_lightning.evaluation.curves import area, image_at_text, share_of
from cns_lightning.evaluation.dino import DinoEncoder
from cns_lightning.evaluation.metrics import ClipEncoder
from cns_lightning.experiments.comparison import Comparison, Run, runs_of
from cns_lightning.experiments.preflight import check, check_goes_on
from cns_lightning.experiments.scoring_options import ScoringOptions
from cns_lightning.experiments.table import figures_of, row, rows_within_class
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.sequence import Sequence
from cns_lightning.storage import read_json, write_json
from tests.report.browser import Browser, chromium
from tests.report.looks import DESK, PHONE, check_opens, check_sorts
from tests.report.pages import check_whole_in_itself
from tests.runs.learning import write_sequence


def write_comparison(folder: Path, tiny_base_model: Path, tiny_judge: Path, tiny_dino: Path) -> Path:
    """Writes a comparison of two methods on two concepts."""
    sequence = write_sequence(folder / "two", ["cat", "dog"])
    content = yaml.safe_load(sequence.read_text("utf-8"))
    content["prompts"] = {
        "single": ["a photo of <new1> cat", "a <new2> dog"], "double": ["a <new1> cat and a <new2> dog"], "triple": [],
    }  # fmt: skip
    for concept in content["concepts"]:
        concept["description"] = f"orange {concept['class_word']} with a hat"
    sequence.write_text(yaml.safe_dump(content), "utf-8")
    base = folder / "base.yaml"
    base.write_text(
        yaml.safe_dump(
            {
                "model": {"base_model": str(tiny_base_model)},
                "data": {"batch_size": 2},
                "samples": {"pictures": 0, "steps": 2, "base_prompts": ["a house"]},
            }
        ),
        "utf-8",
    )
    path = folder / "compare.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "stack": [str(base), "configs/hardware/cpu.yaml"],
                "methods": {name: [f"configs/methods/{name}.yaml"] for name in ("cns", "textual_inversion")},
                "alone": "textual_inversion",
                "sets": [str(sequence)],
                "fit": {"steps": 2, "snapshots.steps": [1]},
                "test": {"pictures": 1, "look_alikes": 2, "judge": str(tiny_judge), "dino": str(tiny_dino)},
            }
        ),
        "utf-8",
    )
    return path


@pytest.fixture
def comparison(tiny_base_model: Path, tiny_judge: Path, tiny_dino: Path, tmp_path: Path) -> Path:
    """Returns a comparison of two methods on two concepts."""
    return write_comparison(tmp_path, tiny_base_model, tiny_judge, tiny_dino)


@pytest.fixture(scope="module")
def compared(
    tiny_base_model: Path, tiny_judge: Path, tiny_dino: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Returns the folder of a finished comparison: ``compare.yaml``, and ``out`` with what it has written."""
    folder = tmp_path_factory.mktemp("compared")
    path = write_comparison(folder, tiny_base_model, tiny_judge, tiny_dino)
    assert main(["compare", "--config", str(path), "--out", str(folder / "out"), "--jobs", "2"]) == 0
    return folder


def table(compared: Path, name: str = "table") -> list[dict[str, str]]:
    """Returns the rows of a table of the comparison."""
    return list(csv.DictReader((compared / "out" / f"{name}.csv").open(encoding="utf-8")))


def scores_of(compared: Path, *names: str) -> dict[str, Any]:
    """Returns the scores of CNS, or those of a bound or another run."""
    return read_json(Path(compared, "out", *(names or ("cns", "sequence", "seed-0", "evaluation")), "scores.json"))


def test_the_table_has_the_figures_of_the_runs(compared: Path, tiny_dino: Path) -> None:
    rows, scores = table(compared), scores_of(compared)
    assert [each["method"] for each in rows] == ["cns", "textual_inversion", "alone", "class word", "in words"]
    expected = {
        "single_clip_i": scores["groups"]["single"]["clip_i"],
        "multi_clip_t": scores["groups"]["double"]["clip_t"],
        "forgetting_from_learned": scores["forgetting_from_learned"],
        "identity_top1": scores["identity"]["top1"],
        "identity_map": scores["identity"]["mean_average_precision"],
        "drift_cmmd": scores["drift"]["cmmd"],
    }
    assert {name: float(rows[0][name]) for name in expected} == pytest.approx(expected)
    assert all(float(rows[0][name]) > 0 for name in ("trained_numbers", "training_seconds", "peak_memory_mb"))
    assert scores["scored_with"]["dino"] == str(tiny_dino)
    by_run = table(compared, "runs")
    assert [(each["method"], each["learned"]) for each in by_run if each["method"] == "alone"] == [
        ("alone", "<new1>"), ("alone", "<new2>"),
    ]  # fmt: skip
    assert float(by_run[0]["single_clip_i"]) == pytest.approx(scores["groups"]["single"]["clip_i"])
    assert {path.name for path in (compared / "out").glob("*.*")} >= {
        "table.png", "forgetting.png", "forgetting.csv", "grid-sequence.png", "confusion-sequence.png", "curves.png",
    }  # fmt: skip


def test_the_page_shows_all_methods_side_by_side(compared: Path) -> None:
    text = (compared / "out" / "report.html").read_text("utf-8")
    found = check_whole_in_itself(text)
    # The user's picture, the bounds and the methods, each with a picture of both concepts; and three figures.
    assert len(found.images) == 2 * (1 + 2 + 2) + 3
    assert "python -m cns_lightning compare --config" in text
    scores = scores_of(compared)
    cells = [cell for row in found.tables[""] for cell in row]
    assert f"{scores['groups']['single']['clip_i']:.3f}" in cells


@pytest.mark.skipif(chromium() is None, reason="needs Chromium")
def test_the_page_in_a_browser(compared: Path, tmp_path: Path) -> None:
    with Browser(tmp_path) as browser:
        for width, scheme in product((PHONE, DESK), ("light", "dark")):
            check_opens(browser, compared / "out" / "report.html", width, scheme)
        check_sorts(browser, column=1, table=1)
        assert browser.problems == []


def test_kinds_and_confusion_have_tables_of_their_own(compared: Path) -> None:
    scores, by_kind = scores_of(compared), table(compared, "kinds")
    assert [(each["method"], each["kind"], each["runs"]) for each in by_kind] == [
        ("cns", "animal", "1"), ("textual_inversion", "animal", "1"),
        ("alone", "animal", "2"), ("class word", "animal", "1"),
    ]  # fmt: skip
    assert float(by_kind[0]["single_clip_i"]) == pytest.approx(scores["groups"]["single"]["clip_i"])
    assert float(by_kind[0]["several_clip_i"]) == pytest.approx(scores["groups"]["double"]["clip_i"])
    assert by_kind[2]["several_clip_i"] == ""
    by_label, labels = table(compared, "confusion"), ["<new1>", "<new2>", "any cat", "any dog"]
    of_method = [each for each in by_label if each["method"] == "cns"]
    assert [(each["asked"], each["seen_as"]) for each in of_method] == list(product(labels[:2], labels))
    assert [float(each["share"]) for each in of_method] == [
        scores["identity"]["confusion"][asked][label] for asked, label in product(labels[:2], labels)
    ]
    assert [(each["asked"], each["seen_as"]) for each in by_label if each["method"] == "alone"] == [
        ("<new1>", "<new1>"), ("<new1>", "any cat"), ("<new2>", "<new2>"), ("<new2>", "any dog"),
    ]  # fmt: skip


def test_bounds_are_those_of_their_pictures(compared: Path, tiny_judge: Path, tiny_dino: Path) -> None:
    rows, out = table(compared), compared / "out"
    in_words = scores_of(compared, "in_words", "sequence")
    assert float(rows[4]["single_clip_i"]) == pytest.approx(in_words["groups"]["single"]["clip_i"])
    assert float(rows[4]["single_clip_i"]) != float(rows[3]["single_clip_i"])
    alone = [scores_of(compared, "alone", "sequence", "seed-0", f"concept-{number}", "evaluation") for number in (0, 1)]
    mean = sum(each["groups"]["single"]["clip_i"] for each in alone) / 2
    assert float(rows[2]["single_clip_i"]) == pytest.approx(mean)
    assert rows[2]["runs"] == "2"
    assert rows[3]["trained_numbers"] == ""
    judge, bound = ClipEncoder(tiny_judge), out / "class_word" / "sequence" / "images"
    concepts = Sequence.read(compared / "two" / "sequence.yaml").concepts
    likeness = [
        float((judge.images([Image.open(bound / f"single-0{number}-seed-0.png")])
               @ judge.images([each.image for each in read_concept_pictures(concept)]).T).mean())
        for number, concept in enumerate(concepts)
    ]  # fmt: skip
    assert float(rows[3]["single_clip_i"]) == pytest.approx(sum(likeness) / 2, abs=1e-6)
    assert rows[3]["identity_top1"]
    # The bound draws look-alikes as the runs did, in the run's own words.
    own = out / "cns" / "sequence" / "seed-0" / "evaluation" / "images"
    for name in ("lookalike-00-seed-0.png", "lookalike-01-seed-1.png"):
        assert (bound / "look-alikes" / name).read_bytes() == (own / "look-alikes" / name).read_bytes()
    assert all(each["single_dino"] for each in rows)
    dino = DinoEncoder(tiny_dino)
    both = dino.images([Image.open(own / "stage-01" / "double-00-seed-0.png")])
    expected = [
        float((both @ dino.images([each.image for each in read_concept_pictures(concept)]).T).mean())
        for concept in concepts
    ]
    assert float(rows[0]["multi_dino"]) == pytest.approx(sum(expected) / 2, abs=1e-5)


def test_curves_start_at_the_class_word_and_end_at_the_run(compared: Path) -> None:
    rows, points = table(compared), table(compared, "curves")
    assert [(each["method"], each["steps"], each["group"]) for each in points if each["method"] != "cns"] == [
        (method, steps, group)
        for method, all_steps in (("textual_inversion", ("1", "2")), ("class word", ("0",)))
        for steps in all_steps
        for group in ("single", "several")
    ]
    own = [(float(each["clip_t"]), float(each["clip_i"])) for each in points if each["group"] == "single"]
    # One picture per prompt everywhere: the curve ends at the run's own figures and starts at the class word's.
    assert own[1] == pytest.approx((float(rows[0]["single_clip_t"]), float(rows[0]["single_clip_i"])))
    assert own[-1] == pytest.approx((float(rows[3]["single_clip_t"]), float(rows[3]["single_clip_i"])))
    curve = [own[-1], *own[:2]]
    assert float(rows[0]["single_area"]) == pytest.approx(area(curve, curve[0][0]))
    found = float(table(compared, "runs")[0]["single_clip_i_at_90"])
    assert found == pytest.approx(image_at_text(curve, share_of(curve[0][0], 0.9)))
    assert rows[2]["single_area"] == ""
    assert float(rows[3]["single_area"]) == pytest.approx(curve[0][1])


def test_a_second_call_does_what_is_missing_and_no_more(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(compared, tmp_path / "copy"))
    comparison, out = folder / "compare.yaml", folder / "out"
    comparison.write_text(comparison.read_text("utf-8").replace(str(compared), str(folder)), "utf-8")
    command = ["compare", "--config", str(comparison), "--out", str(out), "--jobs", "2"]
    written, rows = {path: path.stat().st_mtime_ns for path in out.rglob("*-seed-*.png")}, table(folder)
    (out / "table.csv").unlink()
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*-seed-*.png")} == written
    assert table(folder) == rows
    # A run whose scores are gone, or were written by an older version, is scored again.
    gone = out / "cns" / "sequence" / "seed-0" / "evaluation" / "scores.json"
    older = out / "textual_inversion" / "sequence" / "seed-0"
    gone.unlink()
    write_json(
        older / "compared.json",
        {name: value for name, value in read_json(older / "compared.json").items() if name != "scores"},
    )
    write_json(older / "evaluation" / "scores.json", {"seconds_per_picture": 1.0})
    assert main(command) == 0
    assert gone.exists()
    assert "same_class" in read_json(older / "evaluation" / "scores.json")
    # Other prompts: nothing is learned again, the new one is asked of all.
    sequence = folder / "two" / "sequence.yaml"
    sequence.write_text(
        sequence.read_text("utf-8").replace("  - a <new2> dog", "  - a <new2> dog\n  - <new1> at night")
    )
    assert main(command) == 0
    for method in ("cns", "textual_inversion"):
        assert (out / method / "sequence" / "seed-0" / "evaluation/images/stage-01/single-02-seed-0.png").exists()
    # Other settings of fit: refused before any run starts, with the difference.
    comparison.write_text(comparison.read_text("utf-8").replace("  steps: 2\n", "  steps: 3\n"))
    capsys.readouterr()
    assert main(command) == 2
    assert "data.steps was 2 and is 3" in capsys.readouterr().err


def test_means_and_spread_by_hand() -> None:
    runs = [
        {
            "groups": {
                "single": {"clip_i": value, "clip_t": 0.2},
                "double": {"clip_i": 0.4, "clip_t": 0.1},
                "triple": {"clip_i": 0.2, "clip_t": 0.1},
            }
        }
        for value in (0.5, 0.7)
    ]
    cells = row("method", [figures_of(scores) for scores in runs], [])
    assert cells["single_clip_i"] == pytest.approx(0.6)
    assert cells["single_clip_i_spread"] == pytest.approx(0.02**0.5)
    assert cells["multi_clip_i"] == pytest.approx(0.3)
    assert cells["forgetting_from_best"] is None


def test_likeness_within_a_class_is_the_mean_over_seeds(tmp_path: Path) -> None:
    runs = []
    for seed, (own, alike) in enumerate(((0.5, 0.7), (0.6, 0.9))):
        folder = tmp_path / f"seed-{seed}"
        write_json(folder / "evaluation" / "scores.json", {"same_class": {"<new4>": {"<new4>": own, "<new1>": alike}}})
        runs.append(Run("cns", "set", seed, folder, "set.yaml", (), (), ScoringOptions()))
    bound = {"same_class": {"<new4>": {"<new4>": 0.2, "<new1>": 0.3}}}
    found = [tuple(each.values()) for each in rows_within_class(runs, [("set", bound)])]
    assert found == [
        ("cns", "set", "<new4>", "<new4>", 2, pytest.approx(0.55)),
        ("cns", "set", "<new4>", "<new1>", 2, pytest.approx(0.8)),
        ("class word", "set", "<new4>", "<new4>", 1, 0.2),
        ("class word", "set", "<new4>", "<new1>", 1, 0.3),
    ]


def test_runs_begun_otherwise_are_refused_wherever_they_are(comparison: Path, tmp_path: Path) -> None:
    file = Comparison.read(comparison)
    runs = runs_of(file, tmp_path / "out")
    settings = comparable(checked_configuration([*runs[1].fit_arguments(), "--trainer.devices", "1"]))
    folder = RunFolder(runs[1].folder)
    folder.create()
    kept = {
        **settings,
        "trainer.devices": 4,
        "trainer.strategy.class_path": "some.Strategy",
        "trainer.accelerator": "gpu",
    }
    del kept["trainer.strategy"]
    sequence = Sequence.read(Path(runs[1].sequence)).plain()
    open_accelerator = {**settings, "trainer.accelerator": "auto"}
    RunConfig(folder.config, kept, sequence, {}).write()
    check_goes_on(runs[1], settings)  # a start that left nothing but its configuration binds nothing
    (folder.checkpoints / "last.ckpt").touch()
    check_goes_on(runs[1], open_accelerator)  # other devices are none of its business
    with pytest.raises(UserError, match=r"trainer.accelerator was 'gpu' and is 'cpu'"):
        check_goes_on(runs[1], settings)
    with pytest.raises(UserError, match="seed_everything was 0 and is 1"):
        check_goes_on(replace(runs[1], seed=1), open_accelerator)
    # The first run of the comparison is a new one: the second is looked at all the same.
    with pytest.raises(UserError, match=r"trainer.accelerator was 'gpu' and is 'cpu'"):
        check(comparison, runs)


def test_a_curve_of_runs_without_snapshots_is_refused(comparison: Path, tmp_path: Path) -> None:
    run = runs_of(Comparison.read(comparison), tmp_path / "out")[0]
    curve = run.test.model_copy(update={"curve_pictures": 1})
    check(comparison, [replace(run, test=curve)])
    with pytest.raises(UserError, match="keep no snapshots"):
        check(comparison, [replace(run, test=curve, fit=("--steps", "2"))])


def test_wrong_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("stack: [nowhere.yaml]\nmethods: {cns: [configs/methods/cns.yaml]}\nset: [a]\n", "utf-8")
    assert main(["compare", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "set: is an unknown key" in capsys.readouterr().err
    path.write_text("stack: [nowhere.yaml]\nmethods: {cns: [configs/methods/cns.yaml]}\nalone: none\n", "utf-8")
    assert main(["compare", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "nowhere.yaml: there is no such file" in said
    assert "none of the methods" in said
    for name in ("alone", "class_word", "class word"):
        path.write_text(
            f"stack: [configs/hardware/cpu.yaml]\nmethods: {{{name}: [configs/methods/cns.yaml]}}\n", "utf-8"
        )
        assert main(["compare", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
        assert f"methods.{name}: is the name of a bound" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
