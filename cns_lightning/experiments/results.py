"""All tables and pictures of a finished comparison."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from cns_lightning.diffusion.sheets import grid
from cns_lightning.experiments import curves, differences, table
from cns_lightning.experiments.bounds import bounds_of
from cns_lightning.experiments.comparison import CLASS_WORD_FOLDER, IN_WORDS_FOLDER
from cns_lightning.experiments.figures import (
    curves_as_csv,
    curves_by_method,
    draw_confusion,
    draw_curves,
    draw_table,
    picture_rows,
)
from cns_lightning.experiments.page import comparison_page
from cns_lightning.storage import csv_bytes, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from cns_lightning.experiments.comparison import Run


def write_results(runs: list[Run], out: Path, command: str, configuration: str) -> str:
    """Scores the bounds and writes all tables, pictures and the page of a comparison; returns the table in Markdown.

    Args:
        runs: finished runs.
        out: folder of the comparison.
        command: command that made it, for its page.
        configuration: text of its file, likewise.
    """
    bounds = {name: bounds_of(name, runs, out) for name in dict.fromkeys(run.set_name for run in runs)}
    bound = {name: class_word for name, (class_word, _) in bounds.items()}
    by_run = curves.with_headline(table.rows_by_run(runs), runs, bound)
    write_atomically(out / "runs.csv", csv_bytes(by_run, table.RUN_COLUMNS))
    apart = differences.paired_differences(by_run)
    write_atomically(out / "differences.csv", csv_bytes(apart, differences.COLUMNS))
    write_atomically(out / "kinds.csv", csv_bytes(table.rows_by_kind(runs, bound.items()), table.KIND_COLUMNS))
    write_atomically(
        out / "same_class.csv", csv_bytes(table.rows_within_class(runs, bound.items()), table.SAME_CLASS_COLUMNS)
    )
    write_confusion(table.rows_of_confusion(runs, bound.items()), out)
    in_words = [scores for _, scores in bounds.values() if scores is not None]
    rows = table.rows_of(by_run, list(bound.values()), in_words)
    text = table.as_markdown(rows)
    write_atomically(out / "table.csv", csv_bytes(rows, table.COLUMNS))
    write_atomically(out / "table.md", text.encode())
    write_atomically(out / "table.png", draw_table(rows))
    curves.write_curves(runs, bound, out)
    forgetting = curves_by_method(runs)
    write_atomically(out / "forgetting.csv", curves_as_csv(forgetting))
    if forgetting:
        write_atomically(out / "forgetting.png", draw_curves(forgetting))
    else:  # of an earlier call, with other settings of `test`
        (out / "forgetting.png").unlink(missing_ok=True)
    grids = write_grids(runs, out)
    write_atomically(out / "report.html", comparison_page(out, rows, apart, grids, command, configuration).encode())
    return text


def write_confusion(rows: list[dict[str, Any]], out: Path) -> None:
    """Writes what pictures of concepts are taken for: a table, and a sheet of heat maps for each set."""
    write_atomically(out / "confusion.csv", csv_bytes(rows, table.CONFUSION_COLUMNS))
    for name in dict.fromkeys(row["set"] for row in rows):
        drawn = draw_confusion([row for row in rows if row["set"] == name])
        write_atomically(out / f"confusion-{name}.png", drawn)


def write_grids(runs: list[Run], out: Path) -> dict[str, Any]:
    """Draws one sheet a set, of its first seed; returns what is on it, from `picture_rows`, by set."""
    found = {}
    for name in dict.fromkeys(run.set_name for run in runs):
        of_set = [run for run in runs if run.set_name == name]
        in_words = out / IN_WORDS_FOLDER / name / "images"
        prompts, rows = found[name] = picture_rows(
            [run for run in of_set if run.seed == of_set[0].seed],
            out / CLASS_WORD_FOLDER / name / "images",
            in_words if in_words.is_dir() else None,
        )
        sheet = grid([pictures for _, pictures in rows], [label for label, _ in rows], prompts)
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        write_atomically(out / f"grid-{name}.png", buffer.getvalue())
    return found
