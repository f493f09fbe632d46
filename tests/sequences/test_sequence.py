"""A sequence file: what is read, and the message for every mistake."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from cns_lightning.analysis.queries import read_families
from cns_lightning.errors import UserError
from cns_lightning.sequences.calibration import read_calibration_prompts
from cns_lightning.sequences.sequence import Sequence, left_out, picture_files, sequence_path
from tests.runs.learning import write_sequence


@pytest.fixture
def good(tmp_path: Path) -> dict[str, Any]:
    """Returns the content of a correct file; its pictures lie in the test's folder."""
    for name in ("cat", "mug"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (16, 16)).save(tmp_path / name / f"{number}.PNG")
    return {
        "name": "family",
        "concepts": [
            {"token": "<new1>", "class_word": "cat", "kind": "animal", "images": "cat"},
            {"token": "<new2>", "class_word": "mug", "kind": "object", "images": "mug"},
        ],
        "prompts": {"single": ["a <new1> cat"], "double": ["a <new1> cat and a <new2> mug"], "triple": []},
    }


def read(folder: Path, content: Any) -> Sequence:
    path = folder / "family.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    return Sequence.read(path)


def test_correct_file(tmp_path: Path, good: dict[str, Any]) -> None:
    sequence = read(tmp_path, good)
    assert [concept.token for concept in sequence.concepts] == ["<new1>", "<new2>"]
    assert sequence.concepts[0].images == tmp_path / "cat"
    assert sequence.prompts.all() == ("a <new1> cat", "a <new1> cat and a <new2> mug")
    assert sequence.plain()["concepts"][1]["images"] == str(tmp_path / "mug")


def test_prompts_may_be_left_out(tmp_path: Path, good: dict[str, Any]) -> None:
    del good["prompts"]
    assert read(tmp_path, good).prompts.all() == ()


def test_hidden_and_other_files_are_no_pictures(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", ".hidden.png", "a.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in picture_files(tmp_path)] == ["a.PNG", "b.jpg"]


MISTAKES = {
    "concepts[0].token: is missing": lambda content: content["concepts"][0].pop("token"),
    "concepts[1].knd: is an unknown key. Did you mean kind": lambda content: content["concepts"][1].update(
        knd="object"
    ),
    "kind: is animl, no kind of concept. Did you mean animal": (
        lambda content: content["concepts"][0].update(kind="animl")
    ),
    "concepts[0].token: is new1, a token is a word in angle brackets": (
        lambda content: content["concepts"][0].update(token="new1")
    ),
    "concepts[1].token: <NEW1> is the token of concepts[0] already": (
        lambda content: content["concepts"][1].update(token="<NEW1>")
    ),
    "nowhere is not a folder": lambda content: content["concepts"][0].update(images="nowhere"),
    "prompts.single[0]: names <new3>, and no concept has this token. Did you mean <new": (
        lambda content: content["prompts"].update(single=["a <new3> cat"])
    ),
    "prompts.single[0]: names 0 concepts, a single prompt names 1": lambda content: content["prompts"].update(
        single=["a cat"]
    ),
    "prompts.single[0]: names 2 concepts, a single prompt names 1": (
        lambda content: content["prompts"].update(single=["a <new1> cat and a <new2> mug"])
    ),
    "prompts.singel: is an unknown key. Did you mean single": lambda content: content["prompts"].update(singel=[]),
    "prompts.single: is not a list of texts": lambda content: content["prompts"].update(single="a cat"),
    "concepts: holds no list of concepts": lambda content: content.update(concepts=[]),
    "class_word: is 7, a word is needed": lambda content: content["concepts"][0].update(class_word=7),
    "nam: is an unknown key. Did you mean name": lambda content: content.update(nam="x"),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(tmp_path: Path, good: dict[str, Any], message: str) -> None:
    MISTAKES[message](good)
    with pytest.raises(UserError) as refused:
        read(tmp_path, good)
    assert message in str(refused.value)


def _leave_pictures(folder: Path, count: int) -> None:
    for path in picture_files(folder):
        path.unlink()
    for number in range(count):
        (folder / f"{number}.png").touch()


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_pictures(tmp_path: Path, good: dict[str, Any], count: int) -> None:
    _leave_pictures(tmp_path / "cat", count)
    with pytest.raises(UserError, match=rf"holds {count} pictures, at least 3 are needed\. Add pictures"):
        read(tmp_path, good)


def test_many_pictures_are_welcome(tmp_path: Path, good: dict[str, Any]) -> None:
    _leave_pictures(tmp_path / "cat", 50)
    assert len(picture_files(read(tmp_path, good).concepts[0].images)) == 50


def test_all_faults_are_said_at_once(tmp_path: Path, good: dict[str, Any]) -> None:
    good["concepts"][0]["kind"] = "beast"
    good["concepts"][1]["images"] = "nowhere"
    with pytest.raises(UserError) as refused:
        read(tmp_path, good)
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concepts: [\n  {", "line 2: is not valid YAML"),
        ("", "holds nothing where name, concepts and prompts are needed"),
        ("- a", "holds a list where"),
    ],
)
def test_files_that_are_no_sequence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        read(tmp_path, text)
    assert message in str(refused.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read"):
        Sequence.read(tmp_path / "none.yaml")


@pytest.mark.usefixtures("without_heif")
def test_what_is_left_out_of_a_folder_is_named(tmp_path: Path) -> None:
    for name in ("1.png", "1.txt", "2.gif", "IMG_1.HEIC", "notes.txt", "Thumbs.db", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    said = left_out(tmp_path)
    for part in ("IMG_1.HEIC (HEIC", "notes.txt (of another kind)", "more (in a folder", "gone.png (links to"):
        assert part in said
    assert "Thumbs" not in said
    assert "1.txt" not in said
    for number in range(5):
        (tmp_path / f"IMG_{number}.HEIC").touch()
    assert "IMG_0.HEIC, IMG_1.HEIC, IMG_2.HEIC and 2 more" in left_out(tmp_path)


def test_letters_of_two_characters_are_those_of_one(tmp_path: Path, good: dict[str, Any]) -> None:
    text = yaml.safe_dump(good).replace("<new1>", unicodedata.normalize("NFD", "<m\u00f4m\u00f4>"))
    sequence = read(tmp_path, text)
    assert sequence.concepts[0].token == "<m\u00f4m\u00f4>"
    assert any("<m\u00f4m\u00f4>" in prompt for prompt in sequence.prompts.single)


def test_a_description_may_be_given(tmp_path: Path, good: dict[str, Any]) -> None:
    good["concepts"][0]["description"] = " grey cat "
    sequence = read(tmp_path, good)
    assert [concept.description for concept in sequence.concepts] == ["grey cat", ""]
    assert Sequence.from_plain(sequence.plain()).concepts == sequence.concepts
    assert "description" not in sequence.plain()["concepts"][1]
    good["concepts"][0]["description"] = "grey <new2>"
    with pytest.raises(UserError, match=r"concepts\[0\]\.description: names <new2>"):
        read(tmp_path, good)


def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sequence(tmp_path, ["cat", "dog"])
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "dog1":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(UserError, match=r"concepts\[1\]\.images: .*dog1: cannot be read \(Permission denied\)"):
        Sequence.read(path)


def test_a_folder_does_not_hide_what_ships_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("miniature_set1", "miniature", "stable_diffusion"):
        (tmp_path / name).mkdir()
    assert sequence_path("miniature_set1").is_file()
    assert len(read_calibration_prompts("miniature")) == 100
    assert read_families("stable_diffusion")
