"""A search for a method's settings: every method tries as many, and all are scored alike.

The runs are those of a comparison, one for each setting; what is finished is not repeated.
"""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import yaml

from cns_lightning.compare import Comparison, Run, as_arguments, sequences_of
from cns_lightning.compare_table import figures_of
from cns_lightning.experiment_file import ExperimentFile
from cns_lightning.run_folder import RunFolder
from cns_lightning.storage import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    Setting = dict[str, Any]

EXAMPLE = "configs/experiments/search.yaml"
BEST = "best"
"""Folder of the best settings, beside those of the methods."""
KEYS = ("stack", "methods", "sets", "seeds", "fit", "test")
SHOWN = ("single_clip_i", "multi_clip_i", "single_clip_t", "multi_clip_t")


@dataclass(frozen=True)
class Search:
    """What is tried.

    Attributes:
        comparison: files, sets, seeds and arguments, as of a comparison.
        settings: by method, what is tried: values by configuration key.
    """

    comparison: Comparison
    settings: dict[str, list[Setting]]

    @classmethod
    def read(cls, path: Path) -> Search:
        """Reads a configuration.

        Raises:
            UserError: listing every fault; one of them is that methods try different numbers of settings.
        """
        file = ExperimentFile(path, KEYS, EXAMPLE)
        files: dict[str, tuple[str, ...]] = {}
        settings: dict[str, list[Setting]] = {}
        for name, given in file.mapping("methods", file.content.get("methods")).items():
            if name == BEST:
                file.add(f"methods.{name}", "is the folder of what is found best", "Call it otherwise")
            if not isinstance(given, dict):
                file.add(f"methods.{name}", "needs the keys files and grid")
                continue
            file.known(f"methods.{name}", given, ("files", "grid"))
            files[name] = file.files(f"methods.{name}.files", given.get("files"))
            grid = {
                key: file.values(f"methods.{name}.grid.{key}", values)
                for key, values in file.mapping(f"methods.{name}.grid", given.get("grid")).items()
            }
            settings[name] = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        if len(counts := {len(tried) for tried in settings.values()}) > 1:
            told = ", ".join(f"{name} {len(tried)}" for name, tried in settings.items())
            file.add("methods", f"try different numbers of settings ({told})", f"Let all try {max(counts)}")
        return cls(Comparison.of(file, files), settings)


def runs_of(search: Search, out: Path) -> list[tuple[int, Run]]:
    """Lists the runs, each with the number of its setting.

    Raises:
        UserError: if a sequence file is wrong.
    """
    comparison, found = search.comparison, []
    for (path, _), seed in product(sequences_of(comparison), comparison.seeds):
        for name, tried in search.settings.items():
            stacked = (*comparison.stack, *comparison.methods[name])
            for number, setting in enumerate(tried):
                folder = out / name / f"setting-{number:02d}" / path.stem / f"seed-{seed}"
                fit = (*comparison.fit, *as_arguments(setting))
                run = Run(name, path.stem, seed, folder, str(path.absolute()), stacked, fit, comparison.test)
                found.append((number, run))
    return found


def objective(figures: dict[str, float | None]) -> float:
    """Gives what a setting is chosen by: the mean of CLIP-I on prompts with one concept and on those with several.

    CLIP-T is not in it: whatever is learned lowers it, so the best would be to learn nothing. A setting that ruins the
    words around a concept loses its neighbour in prompts with several, and so CLIP-I there.
    """
    values = [figures.get("single_clip_i"), figures.get("multi_clip_i")]
    return statistics.fmean(value for value in values if value is not None)


def rows_of(search: Search, runs: Iterable[tuple[int, Run]]) -> list[dict[str, Any]]:
    """Gives one row a setting, the best of each method first; figures are means over sets and seeds."""
    found: dict[tuple[str, int], list[dict[str, float | None]]] = {}
    for number, run in runs:
        scores = read_json(RunFolder(run.folder).evaluation / "scores.json")
        found.setdefault((run.method, number), []).append(figures_of(scores))
    rows = []
    for (method, number), figures in found.items():
        cells: dict[str, Any] = {
            "method": method,
            "setting": number,
            "objective": statistics.fmean(map(objective, figures)),
        }
        for name in (*SHOWN, "drift_clip_t"):
            values = [value for value in (each.get(name) for each in figures) if value is not None]
            cells[name] = statistics.fmean(values) if values else None
        cells["values"] = " ".join(f"{key}={value}" for key, value in search.settings[method][number].items())
        rows.append(cells)
    order = list(search.settings)
    return sorted(rows, key=lambda cells: (order.index(cells["method"]), -cells["objective"]))


def best_of(search: Search, rows: Iterable[dict[str, Any]]) -> dict[str, Setting]:
    """Gives the best setting of each method."""
    best: dict[str, Setting] = {}
    for cells in rows:
        best.setdefault(cells["method"], search.settings[cells["method"]][cells["setting"]])
    return best


def as_yaml(setting: Setting) -> bytes:
    """Gives a setting as a configuration file to be stacked on the method's."""
    tree: dict[str, Any] = {}
    for key, value in setting.items():
        # On the command line a method's arguments may be named without this level, in a file they may not.
        *path, last = key.replace("model.method.", "model.method.init_args.").split(".")
        place = tree
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return yaml.safe_dump(tree, sort_keys=False).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    """Gives the rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_text(rows: list[dict[str, Any]]) -> str:
    """Gives the rows for a terminal and for Markdown."""
    names = list(rows[0])
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|---" * len(names) + "|"]
    for cells in rows:
        shown = [
            f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
            for value in cells.values()
        ]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join([*lines, ""])
