"""Every trouble of a folder of photos is found, and named with its file."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from cns_lightning.data.images import read_picture
from cns_lightning.data.masks import Masks
from cns_lightning.doctor.findings import Finding, Severity, merged
from cns_lightning.doctor.pictures import content_findings, folder_findings, header_findings
from cns_lightning.sequences.sequence import Concept
from tests.doctor.photos import noise, write_cut, write_deep_colours, write_good, write_odd


def concept(folder: Path, token: str = "<a>") -> Concept:
    return Concept(token, "cat", "animal", folder)


def by_problem(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.problem: finding for finding in merged(findings)}


def test_headers_tell_what_is_converted(tmp_path: Path) -> None:
    write_good(tmp_path, 7)
    write_odd(tmp_path)
    write_deep_colours(tmp_path / "deep2.png")
    found = by_problem(header_findings([concept(tmp_path)], 64))
    names = {problem: finding.names for problem, finding in found.items()}
    assert names == {
        "smaller than the 64 pixels a side of the base model's pictures": ("small.png (24x24)",),
        "has an alpha channel": ("alpha.png",),
        "CMYK": ("cmyk.jpg",),
        "more than 8 bits a channel": ("deep.png", "deep2.png"),
        "animated": ("moving.gif",),
        "a PNG that is called .jpg": ("named.jpg",),
        "turned by its EXIF orientation": ("turned.jpg",),
    }
    severities = [finding.severity for finding in found.values()]
    assert severities == [Severity.WARNING] + [Severity.NOTE] * 6
    # All of them can be used; what is transparent in part counts less there.
    assert [finding.problem for finding in content_findings([concept(tmp_path)])] == ["transparent in part"]


def test_what_is_said_of_a_picture_is_what_reading_does(tmp_path: Path) -> None:
    write_odd(tmp_path)
    assert read_picture(tmp_path / "alpha.png").getpixel((5, 5)) != noise(4).getpixel((5, 5))
    assert all(read_picture(path).mode == "RGB" for path in tmp_path.iterdir())


def test_a_picture_of_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_good(tmp_path, 0, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert header_findings([concept(tmp_path)], 64) == []
    (found,) = content_findings([concept(tmp_path)])
    assert "has more than 1,000 pixels" in found.problem


def test_no_resolution_no_word_about_sizes(tmp_path: Path) -> None:
    noise(1, 20).save(tmp_path / "a.png")
    assert header_findings([concept(tmp_path)], None) == []
    assert len(header_findings([concept(tmp_path)], 21)) == 1


def test_files_that_stop_a_fit(tmp_path: Path) -> None:
    write_good(tmp_path, 0)
    write_cut(tmp_path / "cut.jpg")
    (tmp_path / "text.jpg").write_text("no picture")
    noise(3, 8).save(tmp_path / "dot.png")
    (tmp_path / "good0.txt").write_text(" ")
    assert header_findings([concept(tmp_path)], None) == []
    found = content_findings([concept(tmp_path)])
    assert {Path(each.where).name for each in found} == {"cut.jpg", "text.jpg", "dot.png", "good0.txt"}
    assert all(each.severity is Severity.STOPS for each in found)
    cut = next(each for each in found if each.where.endswith("cut.jpg"))
    assert "is damaged or cut off" in str(cut)
    assert "Copy it again" in str(cut)


def test_copies_are_found_within_a_folder_and_between_folders(tmp_path: Path) -> None:
    first, second = write_good(tmp_path / "one", 1, 4), write_good(tmp_path / "two", 2, 3)
    picture = noise(100, 256)
    picture.resize((90, 90)).save(first / "copy.jpg", quality=40)
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(first / "mirrored.png")
    shutil.copy(first / "good1.png", second / "also.png")
    found = content_findings([concept(first), concept(second, "<b>")])
    assert [each.severity for each in found] == [Severity.WARNING] * 2
    within = next(each for each in found if each.names)
    assert within.names == ("copy.jpg", "good0.png", "mirrored.png")
    between = next(each for each in found if not each.names)
    assert between.where == "one/good1.png, two/also.png"


@pytest.mark.usefixtures("without_heif")
def test_files_beside_pictures(tmp_path: Path) -> None:
    write_good(tmp_path, 0)
    (tmp_path / "good0.txt").write_text("a cat")
    (tmp_path / "lost.txt").write_text("a cat")
    found = by_problem(folder_findings([concept(tmp_path)]))
    assert found.keys() == {"1 of 3 pictures have a caption beside them", "a caption without its picture"}
    assert found["a caption without its picture"].names == ("lost.txt",)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"")
    found = by_problem(folder_findings([concept(tmp_path)]))
    unread = next(finding for problem, finding in found.items() if problem.startswith("not read"))
    assert "IMG_1.HEIC" in unread.problem
    assert "pip install pillow-heif" in unread.remedy
    assert unread.severity is Severity.WARNING
    assert "lost.txt" not in unread.problem, "said once"


@pytest.mark.usefixtures("without_heif")
def test_a_file_of_a_pictures_name_that_is_not_read(tmp_path: Path) -> None:
    write_good(tmp_path, 0)
    (tmp_path / "good0.HEIC").touch()
    (tmp_path / "good1.MOV").touch()
    (found,) = folder_findings([concept(tmp_path)])
    assert "good0.HEIC" in found.problem
    assert "good1.MOV (of another kind)" in found.problem


def test_masks_are_named_and_looked_at(tmp_path: Path) -> None:
    write_good(tmp_path, 0)
    write_odd(tmp_path / "odd")
    shutil.copy(tmp_path / "odd" / "alpha.png", tmp_path / "alpha.png")
    Image.new("L", (32, 32), 200).save(tmp_path / "good0.mask.png")
    assert folder_findings([concept(tmp_path)])[-1].problem.startswith("not read: odd")
    shutil.rmtree(tmp_path / "odd")
    assert folder_findings([concept(tmp_path)]) == []
    found = by_problem(content_findings([concept(tmp_path)], masks=Masks(outside=0.25)))
    assert {problem: finding.names for problem, finding in found.items()} == {
        "a mask beside the picture": ("good0.mask.png",),
        "transparent in part": ("alpha.png",),
    }
    assert all(finding.severity is Severity.NOTE for finding in found.values())
    assert "What is black counts 0.25 in the loss" in found["a mask beside the picture"].remedy
    assert by_problem(content_findings([concept(tmp_path)], masks=Masks(alpha=False))).keys() == {
        "a mask beside the picture"
    }
    Image.new("L", (32, 32)).save(tmp_path / "good0.mask.png")
    found = by_problem(content_findings([concept(tmp_path)]))
    (black,) = [each for each in found.values() if each.severity is Severity.STOPS]
    assert black.where.endswith("good0.mask.png")


def test_twenty_photos_and_more_are_welcome(tmp_path: Path) -> None:
    write_good(tmp_path, 0, 25)
    assert header_findings([concept(tmp_path)], 64) == folder_findings([concept(tmp_path)]) == []
    assert content_findings([concept(tmp_path)]) == []


def test_photos_are_left_as_they_are(tmp_path: Path) -> None:
    write_odd(tmp_path)
    write_cut(tmp_path / "cut.jpg")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    header_findings([concept(tmp_path)], 64)
    content_findings([concept(tmp_path)])
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_folders_that_are_gone_are_no_concern_here(tmp_path: Path) -> None:
    gone = [concept(tmp_path / "nowhere")]
    assert header_findings(gone, 64) == folder_findings(gone) == content_findings(gone) == []
