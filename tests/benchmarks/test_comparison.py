"""The section that a comparison becomes: its figures by hand, from the files that `compare` writes."""

from pathlib import Path

from PIL import Image

from benchmarks import comparison
from cns_lightning.experiments import differences, table
from cns_lightning.storage import csv_bytes


def _lines(text: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: row[1:] for row in cells}


def test_differences_are_signed_and_counted(tmp_path: Path) -> None:
    rows = [
        {"method": "cns", "against": "fine_tuning", "figure": "single_clip_i", "pairs": 9, "difference": 0.0314,
         "spread": 0.01, "ahead": 8},
        {"method": "cns", "against": "fine_tuning", "figure": "drift_clip_t", "pairs": 9, "difference": -0.0001,
         "spread": None, "ahead": 4},
    ]  # fmt: skip
    (tmp_path / "differences.csv").write_bytes(csv_bytes(rows, differences.COLUMNS))
    lines = _lines(comparison.differences(tmp_path))
    assert lines["CNS less"] == ["CLIP-I one", "drift"]
    assert lines["naive fine-tuning"] == ["+0.031 ± 0.010, 8 of 9", "+0.000, 4 of 9"]


def test_sets_are_means_over_seeds(tmp_path: Path) -> None:
    values = [
        ("cns", "one", 0, 0.25),
        ("cns", "one", 1, 0.75),
        ("cns", "two", 0, 0.125),
        ("fine_tuning", "one", 0, 0.5),
    ]
    rows = [
        {"method": method, "set": name, "seed": seed, **dict.fromkeys(comparison.OF_A_SET, value)}
        for method, name, seed, value in [*values, ("fine_tuning", "two", 0, 0.0)]
    ]
    (tmp_path / "runs.csv").write_bytes(csv_bytes(rows, table.RUN_COLUMNS))
    lines = _lines(comparison.by_set(tmp_path))
    assert lines["CNS"] == ["0.500", "0.125"] * 4
    assert lines["naive fine-tuning"] == ["0.500", "0.000"] * 4
    (tmp_path / "runs.csv").write_bytes(csv_bytes([row for row in rows if row["set"] == "one"], table.RUN_COLUMNS))
    assert comparison.by_set(tmp_path) == ""


def test_two_of_one_class_are_summed_over_both(tmp_path: Path) -> None:
    four = {("<new4>", "<new4>"): 0.6, ("<new4>", "<new5>"): 0.2, ("<new5>", "<new5>"): 0.5, ("<new5>", "<new4>"): 0.3}
    rows = [
        {"method": "cns", "set": "miniature_set1", "asked": one, "compared_with": two, "runs": 1, "clip_i": value}
        for (one, two), value in four.items()
    ]
    (tmp_path / "same_class.csv").write_bytes(csv_bytes(rows, table.SAME_CLASS_COLUMNS))
    assert _lines(comparison.apart(tmp_path))["CNS"] == ["+0.600"]


def test_pictures_lie_beside_the_document(tmp_path: Path) -> None:
    for name in ("curves", "confusion-miniature_set1", "grid-miniature_set1"):
        Image.effect_noise((64, 64), 50).save(tmp_path / f"{name}.png")
    shown = comparison.pictures(tmp_path, tmp_path / "figures", "try")
    names = ["try-curves.png", "try-confusion-set1.png", "try-grid-set1.jpg"]
    assert [line.split("(")[-1].strip(")") for line in shown] == [f"figures/{name}" for name in names]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(names)
