"""The page draws what ``generate`` draws, shows its concepts, and says what is wrong."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cns_lightning.cli.main import main
from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.sampling import generate
from cns_lightning.pipeline import RunModel
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.folder import RunFolder
from cns_lightning.ui.cards import concept_cards
from cns_lightning.ui.form import Form
from cns_lightning.ui.page import next_seeds, page
from cns_lightning.ui.studio import Studio
from tests.export.runs import write_run
from tests.runs.learning import learn

BOX = {"left": 0, "top": 0, "right": 0.5, "bottom": 1, "prompt": "a <new1> cat", "negative": "a dog"}


@pytest.fixture(scope="module")
def run(tiny_base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run folder of two made-up concepts; tests must not write into it."""
    return write_run(tmp_path_factory.mktemp("ui") / "my family", tiny_base_model)


def opened(run: Path) -> Studio:
    folder = RunFolder(run)
    model = RunModel(folder, NeuronRegistry.load(folder.registry))
    return Studio(model, ["python", "-m", "cns_lightning", "generate", "--run", str(run), "--device", "cpu"])


@pytest.fixture(scope="module")
def studio(run: Path) -> Studio:
    """Returns a studio, which every test leaves in another state."""
    return opened(run)


@pytest.mark.parametrize(
    "form",
    [
        Form("a <new1> cat", pictures=2, steps=2, seed="7"),
        Form("a cat", boxes=[BOX, {**BOX, "left": 0.5, "right": 1, "negative": ""}], pictures=1, steps=2, guidance=4),
        Form("a <new1> cat", "rain", {"stage": 1, "strengths": [0.7, 0.2]}, pictures=1, steps=2),
        Form("a <new2> cat", concepts={"stage": 2, "strengths": [0, 1.5]}, pictures=1, steps=2),
        Form("a <new1> cat", pictures=1, steps=2, guidance=1),
    ],
)
def test_pictures_are_those_of_the_command(studio: Studio, form: Form, tmp_path: Path) -> None:
    drawn = studio.draw(form)
    words = shlex.split(drawn.command)
    assert words[:3] == ["python", "-m", "cns_lightning"]
    assert main([*words[3:], "--folder", str(tmp_path)]) == 0
    files = {int(path.stem.rsplit("-", 1)[1]): path for path in tmp_path.iterdir()}
    assert sorted(files) == [seed for _, seed in drawn.pictures]
    for picture, seed in drawn.pictures:
        with Image.open(files[seed]) as written:
            assert written.tobytes() == picture.tobytes()


def test_the_base_model_is_loaded_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = opened(run)
    monkeypatch.setattr(BaseModel, "load", lambda *_, **__: pytest.fail("the model was loaded again"))
    quick = {"pictures": 1, "steps": 1}
    drawn = [
        studio.draw(Form("a <new1> cat", concepts={"stage": stage}, **quick)).pictures[0][0].tobytes()
        for stage in (2, 1, 2)
    ]
    assert drawn[0] == drawn[2] != drawn[1]


def test_mistakes_are_sentences(studio: Studio) -> None:
    later = studio.draw(Form("a <new2> cat", boxes=[BOX], concepts={"stage": 1}))
    (said,) = later.problems
    assert said.startswith("prompt: names <new2>, which was learned after <new1>. Move the slider of stages to")
    assert not later.pictures
    unknown = studio.draw(Form("a cat", boxes=[BOX, {**BOX, "prompt": "a <nwe2> cat"}]))
    assert unknown.problems == [
        "box 2: names <nwe2>, which was not learned. Did you mean <new2>? Learned are <new1>, <new2>"
    ]
    assert studio.draw(Form("a cat", seed=str(2**64 - 1), pictures=2)).problems[0].startswith("seed: is 1844674")
    assert "has 1000 steps" in studio.draw(Form("a cat", steps=2000)).problems[0]


def test_a_token_without_brackets_is_said(studio: Studio) -> None:
    (said,) = studio.draw(Form("a new1 cat", pictures=1, steps=1)).notes
    assert "says new1 without brackets" in said


def test_pictures_of_concepts(tiny_base_model: Path, tmp_path: Path) -> None:
    run = learn("cns", tiny_base_model, tmp_path)
    folder = RunFolder(run)
    registry = NeuronRegistry.load(folder.registry)

    def sources() -> list[str]:
        cards = concept_cards(folder, registry)
        assert all(card.picture.startswith("data:image/") == bool(card.source) for card in cards)
        assert [(card.token, card.word, card.has_strength) for card in cards] == [
            ("<new1>", "cat", True),
            ("<new2>", "dog", True),
        ]
        return [card.source for card in cards]

    assert sources() == ["photo", "photo"]
    (tmp_path / "sequence" / "cat0").rename(tmp_path / "elsewhere")
    assert sources() == ["sample", "photo"]
    for damaged in (b"", b"not a picture"):
        folder.sample_sheet(1).write_bytes(damaged)
        assert sources() == ["sample", "photo"], "the sheet of the stage before has it as well"
    folder.sample_sheet(0).unlink()
    assert sources() == ["", "photo"]
    folder.config.unlink()
    assert sources() == ["", ""]


def test_a_run_that_has_learned_nothing_draws_with_the_base_model(
    tiny_base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "shown"))
    base = BaseModel.load(str(tiny_base_model))
    registry = NeuronRegistry.create(tmp_path / "registry", str(tiny_base_model), base.fingerprint())
    registry.save()
    studio = opened(tmp_path)
    assert page(studio).config
    drawn = studio.draw(Form("a cat", concepts={"stage": 0, "strengths": []}, pictures=1, steps=1))
    (expected,) = generate(base.pipeline(), ["a cat"], [0], steps=1)
    assert drawn.pictures[0][0].tobytes() == expected.tobytes()
    (said,) = studio.draw(Form("a <new1> cat", concepts={"stage": 0, "strengths": []})).problems
    assert "Nothing is learned yet" in said


def test_a_drawing_ends_early_when_the_page_is_closed(run: Path) -> None:
    studio = opened(run)
    steps = []
    step = studio.model.pipe.scheduler.step

    def counted(*given: Any, **named: Any) -> Any:
        steps.append(1)
        if len(steps) == 2:
            studio.stop()
        return step(*given, **named)

    studio.model.pipe.scheduler.step = counted
    drawn = studio.draw(Form("a <new1> cat", pictures=3, steps=20))
    assert drawn.problems == ["The page was closed"]
    assert len(steps) == 2


def test_next_seeds_follow_those_of_the_pictures() -> None:
    assert next_seeds("7", 4) == "11"
    assert next_seeds(str(2**60), 1) == str(2**60 + 1)
    assert [next_seeds("many", 4), next_seeds("7", None)] == ["many", "7"]
