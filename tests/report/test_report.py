"""The page of a run: whole in itself, with every picture readable, and true to what the run wrote."""

import shutil
from pathlib import Path

import pytest

from cns_lightning.cli.main import main
from cns_lightning.diffusion.sheets import pictures_of
from cns_lightning.evaluation.forgetting import forgetting_from_learned
from cns_lightning.evaluation.questions import BASE_PROMPTS
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.report.facts import COLUMNS, data_url, gather, shown_stages, smoothed, verdict
from cns_lightning.report.report import page
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_json, write_json
from cns_lightning.user_files import command_line
from tests.report.pages import Page, check_whole_in_itself
from tests.runs.learning import arguments, learn


@pytest.fixture(scope="module")
def run(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run of two concepts."""
    return learn(
        "cns", tiny_base_model, tmp_path_factory.mktemp("report"), "--samples.base_prompts", "[a house, a boat]"
    )


def test_fit_ends_with_the_page(run: Path) -> None:
    found = check_whole_in_itself((run / "report.html").read_text("utf-8"))
    assert len(found.images) > len(found.tables["strip"])


def test_a_finished_run_that_lacks_its_page_gets_one(tiny_base_model: Path, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "report.html").unlink()
    line = arguments(tiny_base_model, run.parent / "sequence" / "sequence.yaml", copy, steps=2)
    assert main([*line, "--samples.base_prompts", "[a house, a boat]"]) == 0
    assert (copy / "report.html").exists()


def test_the_strip_has_a_row_a_concept_and_a_picture_a_stage(run: Path) -> None:
    facts = gather(RunFolder(run), NeuronRegistry.load(run / "registry"))
    assert [(strip.token, len(strip.photos)) for strip in facts.strips] == [("<new1>", 3), ("<new2>", 3)]
    drawn = [[picture is not None for picture in strip.stages] for strip in facts.strips]
    assert drawn == [[True, True], [False, True]]
    assert [prompt for prompt, _, _ in facts.untouched] == ["a house", "a boat"]
    assert facts.strips[0].stages[0] != facts.strips[0].stages[1]


def test_a_strip_has_scores_below_the_stages_that_the_monitor_has_seen(run: Path) -> None:
    folder = RunFolder(run)
    path = folder.evaluation / "monitor.json"
    write_json(path, {"stages": [{"stage": 0, "clip_i": [0.6], "clip_t": [0.7]}]})
    try:
        found = Page(page(folder))
    finally:
        path.unlink()
    assert [row[-2:] for row in found.tables["strip"][1:]] == [["0.600", ""], ["", ""]]


def test_the_verdict_says_what_was_forgotten(run: Path, tmp_path: Path) -> None:
    folder = RunFolder(run)
    registry = NeuronRegistry.load(folder.registry)
    assert verdict(gather(folder, registry)) == "CNS learned 2 concepts: <new1> cat, <new2> dog."
    matrix = [[0.6], [0.55, 0.7]]
    scores = {"learned": ["<new1>", "<new2>"], "matrix": matrix}
    write_json(folder.evaluation / "scores.json", scores | {"identity": {"top1": 0.75, "confusion": {
        "<new1>": {"<new1>": 0.5, "any cat": 0.5}, "<new2>": {"<new2>": 1.0},
    }}})  # fmt: skip
    try:
        said, found = verdict(gather(folder, registry)), Page(page(folder))
    finally:
        (folder.evaluation / "scores.json").unlink()
    lost = forgetting_from_learned(matrix)
    assert "with a CLIP-I of 0.600 when it was learned and of 0.550 at the end" in said
    assert f"on average the earlier concepts lost {lost:.3f}." in said
    assert "75% of the pictures look most like the concept that was asked for." in said
    assert [row[-2:] for row in found.tables["strip"][1:]] == [["0.600", "0.550"], ["", "0.700"]]
    assert found.tables["matrix"][1:] == [["<new1>", "0.600"], ["<new2>", "0.550", "0.700"]]
    assert found.tables["confusion"] == [
        ["asked for", "<new1>", "any cat", "<new2>"], ["<new1>", "0.50", "0.50", ""], ["<new2>", "", "", "1.00"],
    ]  # fmt: skip


def test_prompts_without_a_concept_are_shown_beside_what_the_base_model_drew(
    run: Path, tiny_base_model: Path, tmp_path: Path
) -> None:
    facts = gather(RunFolder(run), NeuronRegistry.load(RunFolder(run).registry))
    assert [prompt for prompt, _, _ in facts.untouched] == ["a house", "a boat"]
    base = pictures_of(RunFolder(run).base_sheet)
    assert [before for _, before, _ in facts.untouched] == [data_url(base[prompt][0]) for prompt in base]
    after = pictures_of(RunFolder(run).sample_sheet(1))["untouched"]
    assert [last for _, _, last in facts.untouched] == list(map(data_url, after))
    usual = RunFolder(learn("textual_inversion", tiny_base_model, tmp_path))
    facts = gather(usual, NeuronRegistry.load(usual.registry))
    assert [prompt for prompt, _, _ in facts.untouched] == list(BASE_PROMPTS)


@pytest.mark.parametrize("undo", ["--rollback", "--remove"])
def test_figures_of_a_model_that_is_no_more_are_not_shown(run: Path, tmp_path: Path, undo: str) -> None:
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(run, folder.path)
    scores = {"learned": ["<new1>", "<new2>"], "matrix": [[0.6], [0.55, 0.7]]}
    rows = [{"stage": stage, "clip_i": [0.5] * (stage + 1), "identity": {"top1": 0.5}} for stage in range(2)]
    write_json(folder.evaluation / "scores.json", scores)
    write_json(folder.evaluation / "monitor.json", {"stages": rows})
    second = gather(folder, NeuronRegistry.load(folder.registry)).strips[1].stages[1]
    assert main(["concepts", "--run", str(folder.path), undo, "<new1>"]) == 0
    assert not (folder.evaluation / "scores.json").exists()
    kept = read_json(folder.evaluation / "monitor.json")["stages"]
    assert [row["stage"] for row in kept] == ([0] if undo == "--rollback" else [])
    # Whoever put an older file back gets a page all the same.
    write_json(folder.evaluation / "scores.json", scores)
    write_json(folder.evaluation / "monitor.json", {"stages": rows})
    facts = gather(folder, NeuronRegistry.load(folder.registry))
    assert facts.scores is None
    assert facts.monitor is None
    found = Page(page(folder))
    assert "matrix" not in found.tables
    assert [len(strip.stages) for strip in facts.strips] == [1]
    if undo == "--remove":
        assert facts.strips[0].stages == [second], "its sheet has moved up with it"


def test_overlap_is_that_of_the_masks(run: Path) -> None:
    first, second = (record.mask for record in NeuronRegistry.load(run / "registry").records)
    assert first is not None
    assert second is not None
    shared = f"{first.iou(second):.2f}"
    rows = Page((run / "report.html").read_text("utf-8")).tables["overlap"]
    assert rows == [["", "<new1>", "<new2>"], ["<new1>", "", shared], ["<new2>", shared, ""]]


def test_costs_are_those_of_the_run(run: Path) -> None:
    stages = read_json(run / "timings.json")["stages"]
    rows = Page((run / "report.html").read_text("utf-8")).tables["costs"][1:]
    assert [row[0] for row in rows] == ["<new1> cat", "<new2> dog"]
    assert [row[4] for row in rows] == [f"{stages[stage]['seconds']['training']:,.1f}" for stage in ("0", "1")]


def test_a_run_without_samples_has_a_page_too(
    tiny_base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = learn("textual_inversion", tiny_base_model, tmp_path, "--samples.pictures", "0")
    capsys.readouterr()
    assert main(["report", "--run", str(run)]) == 0
    first, then = capsys.readouterr().out.splitlines()
    assert first == f"report: {run / 'report.html'}"
    assert then.startswith(f"next: {command_line(['generate', '--run'])} ")
    assert main(["report", "--run", str(tmp_path / "nowhere")]) == 2


def test_smoothing_is_a_weighted_mean_of_what_came_before() -> None:
    values = [1.0, 3.0, 2.0]
    weights = [0.9**2 * 0.1, 0.9 * 0.1, 0.1]
    expected = sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)
    assert smoothed(values)[0] == pytest.approx(1.0)
    assert smoothed(values)[-1] == pytest.approx(expected)


def test_of_many_stages_some_are_shown_with_first_and_last() -> None:
    assert shown_stages(3) == [0, 1, 2]
    shown = shown_stages(100)
    assert len(shown) == len(set(shown)) == COLUMNS
    assert (shown[0], shown[-1]) == (0, 99)
