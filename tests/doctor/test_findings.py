"""The table: parts by severity, files of one kind in one row, lines that fit."""

from pathlib import Path

import pytest

from cns_lightning.doctor.concepts import readable_sequence, word_findings
from cns_lightning.doctor.findings import Finding, Severity, merged, refusals, shortened, stops, table
from cns_lightning.errors import Problems, UserError
from cns_lightning.sequences.sequence import Concept, Sequence

NOTES = [Finding(Severity.NOTE, "turned", "photos", "Read upright", (f"{number}.jpg",)) for number in range(7)]
STOP = Finding(Severity.STOPS, "is cut off", "photos/cut.jpg", "Copy it again, or remove it " + "from the folder " * 5)


def test_files_of_one_kind_share_a_row() -> None:
    (together,) = merged([*NOTES, NOTES[0]])
    assert together.place == "photos: 0.jpg, 1.jpg, 2.jpg, 3.jpg and 3 more"
    assert str(together) == f"{together.place}: turned. Read upright"


@pytest.mark.parametrize("width", [60, 80, 120, 400])
def test_the_table_fits_its_width(width: int) -> None:
    shown = table(merged([*NOTES, STOP]), width)
    assert max(map(len, shown.splitlines())) <= width
    parts = shown.split("\n\n")
    assert [part.splitlines()[0] for part in parts] == ["Stops a fit (1)", "Nothing to do (1)"]
    assert parts[0].splitlines()[1].split() == ["problem", "file", "what", "to", "do"]
    assert parts[1].splitlines()[1].endswith("what will be done")
    assert set(f"{STOP.problem} {STOP.remedy}".split()) <= set(parts[0].split())


def test_exit_code_and_order() -> None:
    assert not stops(NOTES)
    assert stops([*NOTES, STOP])
    assert merged([*NOTES, STOP])[0] == STOP


def test_a_refusal_is_a_finding_for_each_problem() -> None:
    problems = Problems()
    problems.add("a", "is wrong", "Correct it")
    problems.add("b", "is missing", "Add it")
    with pytest.raises(UserError) as refused:
        problems.raise_if_any()
    assert [str(each) for each in refusals(refused.value)] == str(refused.value).splitlines()


def test_paths_below_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shortened(str(tmp_path / "photos" / "a.jpg")) == "photos/a.jpg"
    assert shortened("/elsewhere/a.jpg") == "/elsewhere/a.jpg"


def test_words_that_do_not_keep_concepts_apart() -> None:
    def found(*tokens: tuple[str, str]) -> list[str]:
        concepts = [Concept(token, word, "animal", Path(token)) for token, word in tokens]
        return [finding.problem for finding in word_findings(concepts)]

    assert found(("<a>", "cat"), ("<b>", "dog")) == []
    assert found(("<a>", "cat"), ("<b>", "Cat")) == ["2 concepts of one class: cat"]
    assert found(("<new1>", "cat"), ("<new10>", "dog")) == [
        "one token stands in the other for programs that write no brackets"
    ]
    assert found(("<new>", "cat"), ("<newt>", "dog")) == []  # CLIP reads newt as a word of its own
    shared = [Concept(token, token[1], "animal", Path("same")) for token in ("<a>", "<b>")]
    assert [finding.problem for finding in word_findings(shared)] == ["is the folder of <a> and of <b>"]


def test_what_can_be_read_of_a_sequence_that_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "family.yaml"
    text = """
concepts:
  - {token: <a>, class_word: cat, kind: animal, images: a}
  - {token: <b>, class_word: dog}
  - 7
prompts: {single: [a <a> cat, 7], double: no}
"""
    path.write_text(text, "utf-8")
    with pytest.raises(UserError):
        Sequence.read(path)
    sequence = readable_sequence(path)
    assert [concept.token for concept in sequence.concepts] == ["<a>"]
    assert sequence.concepts[0].images == tmp_path / "a"
    assert sequence.prompts.single == ("a <a> cat",)
    for broken in ("concepts: 7", "[", "- a", ""):
        path.write_text(broken, "utf-8")
        assert readable_sequence(path).concepts == ()
