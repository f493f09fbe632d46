"""A search for a method's settings: every method tries as many, and all are scored alike.

The runs are those of a comparison, one for each setting; what is finished is not repeated. After the grid a search may
be widened: every method then tries as many neighbours of its best setting, round by round.
"""

from __future__ import annotations

import re
import statistics
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import product
from typing import TYPE_CHECKING, Any

import yaml

from cns_lightning.evaluation.curves import POINT, headline
from cns_lightning.experiments.comparison import Comparison, Run, as_arguments, sequences_of
from cns_lightning.experiments.experiment_file import ExperimentFile
from cns_lightning.experiments.objective import best_point, usual_reach
from cns_lightning.experiments.table import figures_of, scores_of
from cns_lightning.experiments.widening import axes_of, edges_of, next_settings
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Setting = dict[str, Any]

EXAMPLE = "configs/experiments/search.yaml"
BEST = "best"
"""Folder of the best settings, beside those of the methods."""
KEYS = ("stack", "methods", "sets", "seeds", "fit", "test", "widen", "per_round", "reach")
AT_THE_END = ("single_clip_i", "multi_clip_i")
"""The figures whose mean is the objective where runs keep no snapshots."""
SHOWN = ("single_clip_i_at_90", "multi_clip_i_at_90", *AT_THE_END, "single_clip_t", "multi_clip_t", "drift_clip_t")


@dataclass(frozen=True)
class Search:
    """What is tried.

    Attributes:
        comparison: files, sets, seeds and arguments, as of a comparison.
        settings: by method, what is tried: values by configuration key; the grid's, then those of each round.
        grids: by method, the values that the grid is made of, by configuration key.
        widen: rounds after the grid, at most.
        per_round: settings that every method tries in a round.
        ends: how many settings each method had tried after the grid and after each round.
        reach: by set, CLIP-I and CLIP-T of pictures as they should be, for ``single`` and ``several``; of a set that is
            missing, what `usual_reach` says.
    """

    comparison: Comparison
    settings: dict[str, list[Setting]]
    grids: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    widen: int = 0
    per_round: int = 2
    ends: tuple[int, ...] = ()
    reach: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Search:
        """Reads a configuration.

        Raises:
            UserError: listing every fault; one of them is that methods try different numbers of settings.
        """
        file = ExperimentFile(path, KEYS, EXAMPLE)
        files: dict[str, tuple[str, ...]] = {}
        settings: dict[str, list[Setting]] = {}
        grids: dict[str, dict[str, list[Any]]] = {}
        widen = file.count("widen", file.content.get("widen"), 0, 0)
        per_round = file.count("per_round", file.content.get("per_round"), 1, 2)
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
            file.not_said_elsewhere(f"methods.{name}.grid", grid)
            if widen and grid and not axes_of(grid):
                problem = "has no key with two or more numbers above 0, so it cannot be widened"
                file.add(f"methods.{name}.grid", problem, "Give one such (YAML reads 1e-4 as a word: write 1.0e-4)")
            grids[name] = grid
            settings[name] = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
        if len(counts := {len(tried) for tried in settings.values()}) > 1:
            counted = ", ".join(f"{name} {len(tried)}" for name, tried in settings.items())
            file.add("methods", f"try different numbers of settings ({counted})", f"Let all try {max(counts)}")
        reach = read_reach(file, file.content.get("reach"))
        comparison, ends = Comparison.of(file, files), tuple({len(tried) for tried in settings.values()})
        return cls(comparison, settings, grids, widen, per_round, ends, reach)

    def round_of(self, setting: int) -> int:
        """Returns the round in which a setting was tried, by its number; 0 for the grid."""
        return bisect_right(self.ends, setting)


def read_reach(file: ExperimentFile, given: Any) -> dict[str, dict[str, dict[str, float]]]:
    """Reads what could be reached on each set; notes problems in the file."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, groups in file.mapping("reach", given).items() if given is not None else ():
        file.known(f"reach.{name}", groups if isinstance(groups, dict) else {}, ("single", "several"))
        for group, figures in file.mapping(f"reach.{name}", groups).items():
            key = f"reach.{name}.{group}"
            values = file.mapping(key, figures)
            file.known(key, values, POINT)
            needed = [each for each in POINT if each in values or each in ("clip_i", "clip_t")]
            wrong = [each for each in needed if not isinstance(values.get(each), float | int)]
            for each in wrong:
                problem = f"is {values[each]!r} where a number is needed" if each in values else "is missing"
                file.add(f"{key}.{each}", problem, "Write a cosine, as 0.55")
            if not wrong:
                found.setdefault(name, {})[group] = {each: float(values[each]) for each in needed}
    return found


def runs_of(search: Search, out: Path, first: int = 0) -> list[tuple[int, Run]]:
    """Lists the runs, each with the number of its setting.

    Args:
        search: search of settings.
        out: folder of everything.
        first: number of the first setting whose runs are listed.

    Raises:
        UserError: if a sequence file is wrong.
    """
    comparison, found = search.comparison, []
    for (path, _), seed in product(sequences_of(comparison), comparison.seeds):
        for name, tried in search.settings.items():
            stacked = (*comparison.stack, *comparison.methods[name])
            for number, setting in list(enumerate(tried))[first:]:
                folder = out / name / f"setting-{number:02d}" / path.stem / f"seed-{seed}"
                fit = as_arguments(comparison.fit) + as_arguments(setting)
                run = Run(name, path.stem, seed, folder, str(path.absolute()), stacked, fit, comparison.test)
                found.append((number, run))
    return found


def is_whole_only(run: Run) -> bool:
    """Returns whether snapshots say nothing of shorter runs: rates fall to the end, or the token learns first."""
    method = RunConfig.read(RunFolder(run.folder)).whole["model"]["method"]
    module, _, name = method["class_path"].rpartition(".")
    given, kind = method.get("init_args") or {}, getattr(import_module(module), name)
    return bool(given.get("learning_rate_falls", kind.learning_rate_falls) or given.get("token_first"))


def objective(figures: Mapping[str, float | None], names: tuple[str, ...] = AT_THE_END) -> float:
    """Computes what a setting is chosen by where there are no curves: the mean of CLIP-I for one concept and several.

    CLIP-T is not in it, else the best would be to learn nothing.

    Args:
        figures: by name; what does not exist, as for a sequence without prompts of several, does not count.
        names: names of the figures.
    """
    return statistics.fmean(value for value in map(figures.get, names) if value is not None)


def has_curves(runs: Iterable[tuple[int, Run]]) -> bool:
    """Returns whether all finished runs have a curve, so that settings can be compared by it."""
    return all(scores_of(run).get("curve") for _, run in runs)


def rows_of(
    search: Search, runs: Iterable[tuple[int, Run]], starts: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Returns one row per setting, the best of each method first; figures are means over sets and seeds.

    Args:
        search: finished search.
        runs: finished ones, each with the number of its setting.
        starts: figures of the class word by set, where the curves start; None compares without curves.
    """
    found: dict[tuple[str, int], list[dict[str, float | None]]] = {}
    curves: dict[tuple[str, int], list[tuple[Any, Mapping[str, Any], Mapping[str, Any]]]] = {}
    whole_only: set[tuple[str, int]] = set()
    for number, run in runs:
        scores = scores_of(run)
        figures = figures_of(scores)
        if starts is not None:
            start = starts[run.set_name]
            figures |= headline(scores["curve"], start)
            reach = search.reach.get(run.set_name) or usual_reach(start, scores["photos"]["clip_i"])
            curves.setdefault((run.method, number), []).append((scores["curve"], start, reach))
            if is_whole_only(run):
                whole_only.add((run.method, number))
        found.setdefault((run.method, number), []).append(figures)
    rows = []
    for (method, number), figures in found.items():
        best, steps = statistics.fmean(objective(each) for each in figures), None
        if starts is not None:
            best, steps = best_point(curves[method, number], (method, number) in whole_only)
        cells: dict[str, Any] = {
            "method": method,
            "setting": number,
            "round": search.round_of(number),
            "objective": best,
            "best_steps": steps,
        }
        for name in SHOWN:
            values = [value for value in (each.get(name) for each in figures) if value is not None]
            cells[name] = statistics.fmean(values) if values else None
        cells["at_edge"] = ""
        cells["values"] = " ".join(f"{key}={value}" for key, value in search.settings[method][number].items())
        rows.append(cells)
    order = list(search.settings)
    rows.sort(key=lambda cells: (order.index(cells["method"]), -cells["objective"], cells["setting"]))
    for method, setting in best_of(search, rows).items():
        first = next(cells for cells in rows if cells["method"] == method)
        edges = edges_of(search.grids[method], search.settings[method], setting)
        first["at_edge"] = " ".join(key for key, _ in edges) or "no"
    return rows


def widened(search: Search, rows: Iterable[dict[str, Any]]) -> Search | None:
    """Returns the search with the settings of one more round; None where it is at its end.

    It ends after `Search.widen` rounds, when no method's best setting lies at an edge any more, or when there is
    nothing new to try. Every method gets as many new settings.

    Args:
        search: whose settings are all scored.
        rows: rows of the search, from `rows_of`.
    """
    best = best_of(search, rows)
    is_at_edge = any(edges_of(search.grids[name], search.settings[name], setting) for name, setting in best.items())
    if len(search.ends) > search.widen or not is_at_edge:
        return None
    new = {
        name: next_settings(search.grids[name], search.settings[name], setting, search.per_round)
        for name, setting in best.items()
    }
    count = min(map(len, new.values()))
    if count == 0:
        return None
    settings = {name: [*tried, *new[name][:count]] for name, tried in search.settings.items()}
    return replace(search, settings=settings, ends=(*search.ends, search.ends[-1] + count))


def best_of(search: Search, rows: Iterable[dict[str, Any]]) -> dict[str, Setting]:
    """Returns the best setting of each method."""
    best: dict[str, Setting] = {}
    for cells in rows:
        best.setdefault(cells["method"], search.settings[cells["method"]][cells["setting"]])
    return best


def as_yaml(setting: Setting) -> bytes:
    """Returns a setting as a configuration file to be stacked on the method's."""
    tree: dict[str, Any] = {}
    for key, value in setting.items():
        # On the command line a method's arguments may be named without this level, in a file they may not.
        *path, last = re.sub(r"^model\.method\.(?!init_args\.)", "model.method.init_args.", key).split(".")
        place = tree
        for name in path:
            place = place.setdefault(name, {})
        place[last] = value
    return yaml.safe_dump(tree, sort_keys=False).encode()


def as_text(rows: list[dict[str, Any]], is_on_curves: bool = False) -> str:
    """Returns the rows for a terminal and for Markdown, and says what the objective is.

    Args:
        rows: rows of the search, from `rows_of`.
        is_on_curves: whether the objective was read off curves.
    """
    heading = (
        "objective: share of what can be reached, in CLIP-I times in CLIP-T, mean of one concept and of several"
        if is_on_curves
        else "objective: CLIP-I at the end, mean of one concept and of several; the runs have no snapshots"
    )
    names = list(rows[0])
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|---" * len(names) + "|"]
    for cells in rows:
        shown = [
            f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)
            for value in cells.values()
        ]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join([heading, "", *lines, ""])
