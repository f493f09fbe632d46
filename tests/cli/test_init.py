"""`init` writes a sequence file that is read without a fault, from flags or from answers on a terminal."""

import io
import itertools
import os
import random
import shutil
from pathlib import Path

import pytest

from cns_lightning.cli.main import main
from cns_lightning.doctor.base_parts import find_parts
from cns_lightning.doctor.texts import TextSide
from cns_lightning.export.tokens import token_stems
from cns_lightning.sequences.drafts import free_token, may_clash, stem, usual_kind, written_path
from cns_lightning.sequences.sequence import TOKEN, Sequence
from cns_lightning.user_files import command_line, shipped
from tests.doctor.photos import write_good


class Terminal(io.StringIO):
    """Answers as a person at a terminal gives them."""

    def isatty(self) -> bool:
        return True


def folders(place: Path, *names: str) -> list[Path]:
    return [write_good(place / name, number) for number, name in enumerate(names)]


def command(images: list[Path], *more: str) -> list[str]:
    return ["init", *(word for each in images for word in ("--images", str(each))), *more]


def test_from_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = folders(Path("photos"), "momo", "mug", "our garden", "sketches")
    words = [
        "--class-word",
        "cat",
        "--class-word",
        "coffee mug",
        "--class-word",
        "garden",
        "--class-word",
        "sketch style",
    ]
    more = ["--token", "<m0m0>", "--kind", "object", "--out", "family.yaml"]
    assert main(command(images, *words, *more)) == 0
    sequence = Sequence.read(Path("family.yaml"))
    assert [(each.token, each.class_word, each.kind) for each in sequence.concepts] == [
        ("<m0m0>", "cat", "object"),
        ("<cnsmug>", "coffee mug", "object"),
        ("<cnsourgarden>", "garden", "scene"),
        ("<cnssketches>", "sketch style", "style"),
    ]
    assert "images: photos/our garden\n" in Path("family.yaml").read_text("utf-8")
    assert sequence.concepts[2].images.samefile(images[2])
    prompts = sequence.prompts
    assert (len(prompts.single), len(prompts.double), len(prompts.triple)) == (20, 4, 3)
    assert "a photo of a dog in the <cnsourgarden> garden" in prompts.single
    assert "a cat in <cnssketches> sketch style" in prompts.single
    assert all(token in " ".join(prompts.double) for token in ("<m0m0>", "<cnsmug>", "<cnsourgarden>", "<cnssketches>"))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "family.yaml: 4 concepts, 27 evaluation prompts"
    for number, name in ((-3, "doctor"), (-1, "fit")):
        assert shown[number].startswith(f"  {command_line([name, '--config'])} ")
        assert shown[number].endswith("--data.sequence family.yaml --run runs/family")
        files = [word for word in shown[number].split() if word.endswith("cns.yaml")]
        assert shipped(files[0]).is_file()


def test_from_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    images = folders(tmp_path, "momo", "cat", "garden")
    answers = ["", "cat", "beast", "", "momo", "cat", "animal", "<momo>", "", "garden", ""]
    monkeypatch.setattr("sys.stdin", Terminal("\n".join(answers) + "\n"))
    path = tmp_path / "family.yaml"
    assert main(command(images, "--out", str(path))) == 0
    assert [(each.token, each.class_word, each.kind) for each in Sequence.read(path).concepts] == [
        ("<momo>", "cat", "animal"),
        ("<cnscat>", "cat", "animal"),
        ("<cnsgarden>", "garden", "scene"),
    ]
    shown = capsys.readouterr().out
    for part in ("3 pictures", "is empty", "is beast", "is the token of another concept", "[<cnsmomo>]", "[cat]"):
        assert part in shown, part


def test_the_end_of_the_answers_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("cat\n"))
    assert main(command(folders(tmp_path, "momo"), "--out", str(tmp_path / "family.yaml"))) == 130
    assert not (tmp_path / "family.yaml").exists()


def test_an_existing_file_is_replaced_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "family.yaml"
    path.write_text("mine", "utf-8")
    line = command(folders(tmp_path, "cat"), "--class-word", "cat", "--out", str(path))
    assert main(line) == 2
    assert "is there already. Give another path, or --force" in capsys.readouterr().err
    assert path.read_text("utf-8") == "mine"
    assert main([*line, "--force"]) == 0
    assert Sequence.read(path).concepts[0].class_word == "cat"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "--class-word of "),
        (["--class-word", "cat"], "--class-word of "),
        (["--class-word", "cat", "--class-word", " "], "--class-word: is empty"),
        (["--class-word", "cat", "--class-word", "<cat>"], "angle brackets are for tokens"),
        (
            ["--class-word", "a", "--class-word", "b", "--class-word", "c"],
            "--class-word: is given 3 times for 2 folders",
        ),
        (["--kind", "beast"], "--kind: is beast, no kind of concept"),
        (["--class-word", "a", "--class-word", "b", "--token", "<a b>"], "--token: is '<a b>'"),
        (["--class-word", "a", "--class-word", "b", "--token", "<a>", "--token", "<A>"], "<A> is the token of"),
        (
            ["--class-word", "a", "--class-word", "b", "--token", "<new10>", "--token", "<new1>"],
            "<new1> stands within <new10> for programs that know tokens without brackets. Write another word for "
            "one of them, such as <cnsnewone>",
        ),
        (["--class-word", "a", "--class-word", "b", "--token", "x" * 70], "token: has 72 characters"),
        (["--out", "."], "is a folder"),
    ],
)
def test_wrong_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
    out = ["--out", str(tmp_path / "new.yaml")] if "--out" not in more else []
    assert main(command(folders(tmp_path, "one", "two"), *out, *more)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.usefixtures("without_heif")
def test_folders_that_hold_no_concept_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [write_good(tmp_path / "few", 0, 2), tmp_path / "nowhere", write_good(tmp_path / "cat", 1)]
    (tmp_path / "few" / "IMG_1.HEIC").touch()
    assert main(command(images, "--out", str(tmp_path / "family.yaml"))) == 2
    said = capsys.readouterr().err
    assert f"{images[0]}: images: {images[0]} holds 2 pictures" in said
    assert "IMG_1.HEIC (HEIC" in said
    assert f"--images {images[1]}: is not a folder" in said
    assert len(said.splitlines()) == 2


NAMES = (
    "momo", "dog", "dog6", "dog 6", "new1", "new10", "2024", "été 2024", "ねこ", "a'b\"c", "~", "~user", "-x", "true",
    "null", "#1 cat", "cat: tabby", "{cat}", "{0}", "%s", " lead", "trail ", "a\tb", "\u2028", "x" * 100, "<new1>",
    "cat\n", "é", "e\u0301", "👩\u200d👧", "*", "&a", "!tag", "=", ".hidden",
    "brandnew1",
)  # fmt: skip
WORDS = (
    "cat", "coffee mug", "style", "drawing", "garden", "room", "no", "null", "1", "{token}", "duck: toy", "Ünïcode",
    "x" * 90, "'quoted'", "a  b", "#", "e\u0301te\u0301",
)  # fmt: skip


def test_what_is_written_is_read_without_a_fault(tmp_path: Path, tiny_base_model: Path) -> None:
    draw = random.Random(0)
    tokenizer = TextSide(find_parts(str(tiny_base_model))).tokenizers[0]
    pictures = write_good(tmp_path / "pictures", 0)
    for number in range(60):
        place = tmp_path / str(number)
        images = [place / draw.choice(("", "in", "in/deep")) / name for name in draw.sample(NAMES, draw.randint(1, 7))]
        for folder in images:
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(pictures, folder, dirs_exist_ok=True)
        words = [word for _ in images for word in ("--class-word", draw.choice(WORDS))]
        out = place / draw.choice(("family.yaml", "in/family.yaml", "new/2024.yaml", "null.yaml"))
        assert main(command(images, "--out", str(out), *words)) == 0
        sequence = Sequence.read(out)
        assert len(sequence.concepts) == len(images)
        assert all(concept.images.samefile(folder) for concept, folder in zip(sequence.concepts, images, strict=True))
        tokens = [concept.token for concept in sequence.concepts]
        assert all(TOKEN.fullmatch(token) and stem(token).isascii() and stem(token).isalnum() for token in tokens)
        assert not any(may_clash(*pair) for pair in itertools.combinations(tokens, 2))
        # Other programs can have them as they are: export changes none.
        assert token_stems(tokens, tokenizer) == {token: stem(token) for token in tokens}
        kinds = [concept.kind for concept in sequence.concepts]
        assert len(sequence.prompts.single) == 5 * len(tokens)
        has_things = bool({*kinds} - {"scene", "style"})
        assert bool(sequence.prompts.double) == (len(tokens) > 1 and (has_things or {"scene", "style"} <= {*kinds}))
        assert len(set(sequence.prompts.all())) == len(sequence.prompts.all())


def test_every_concept_comes_up_in_pairs(tmp_path: Path) -> None:
    images = folders(tmp_path, *(f"thing{chr(97 + number)}" for number in range(11)))
    words = [word for _ in images for word in ("--class-word", "thing")]
    assert main(command(images, *words, "--out", str(tmp_path / "many.yaml"))) == 0
    sequence = Sequence.read(tmp_path / "many.yaml")
    assert (len(sequence.prompts.double), len(sequence.prompts.triple)) == (6, 4)
    for prompts in (sequence.prompts.double, sequence.prompts.triple):
        counts = [sum(concept.token in TOKEN.findall(prompt) for prompt in prompts) for concept in sequence.concepts]
        assert max(counts) - min(counts) <= 1


def test_two_styles_make_no_picture_together(tmp_path: Path) -> None:
    words = ["--class-word", "style", "--class-word", "painting"]
    assert main(command(folders(tmp_path, "a", "b"), *words, "--out", str(tmp_path / "styles.yaml"))) == 0
    sequence = Sequence.read(tmp_path / "styles.yaml")
    assert [concept.kind for concept in sequence.concepts] == ["style", "style"]
    assert (len(sequence.prompts.single), sequence.prompts.double) == (10, ())
    assert sequence.prompts.single[5] == "a cat in the style of <cnsb> painting"


@pytest.mark.parametrize(
    ("folder", "taken", "token"),
    [
        ("momo", [], "<cnsmomo>"),
        ("Momo!", ["<cnsmomo>"], "<cnsmomob>"),
        ("dog6", ["<cnsdog>"], "<dog6>"),
        ("dog6", ["<dog>"], "<cnsdogsix>"),
        ("new10", ["<new1>"], "<cnsnewonezero>"),
        ("6dogs", [], "<cns6dogs>"),
        ("ねこ", [], "<cnsconcept>"),
        ("ねこ", ["<cnsconcept>"], "<cnsconceptb>"),
    ],
)
def test_tokens_from_names(folder: str, taken: list[str], token: str) -> None:
    assert free_token(folder, taken) == token


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("cat", ("animal", False)), ("Tabby Cats", ("animal", False)), ("mug", ("object", False)),
        ("living room", ("scene", True)), ("watercolor style", ("style", True)), ("glass", ("object", False)),
    ],
)  # fmt: skip
def test_kinds_from_words(word: str, kind: tuple[str, bool]) -> None:
    assert usual_kind(word) == kind


def test_paths_that_a_relative_name_would_miss(tmp_path: Path) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "far" / "away"
    photos.mkdir()
    elsewhere.mkdir(parents=True)
    assert written_path(photos, tmp_path) == "photos"
    assert written_path(photos, elsewhere) == "../../photos"
    assert written_path(tmp_path, tmp_path) == "."
    if os.name != "nt":
        (tmp_path / "link").symlink_to(elsewhere)
        # From behind the link, .. is another folder.
        assert written_path(photos, tmp_path / "link") == str(photos)
        assert written_path(Path("/usr"), tmp_path) == "/usr"
