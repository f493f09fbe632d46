"""The table of a comparison: one row per method, means over runs, and how far the runs lie apart."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from cns_lightning.evaluation.costs import COSTS as COSTS_OF_A_RUN
from cns_lightning.evaluation.costs import DEVICE
from cns_lightning.evaluation.curves import HEADLINE
from cns_lightning.experiments.comparison import ALONE, CLASS_WORD, IN_WORDS
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cns_lightning.experiments.comparison import Run

    Figures = dict[str, float | None]

QUALITY = (
    "single_clip_i", "single_clip_t", "multi_clip_i", "multi_clip_t", "all_there",
    "forgetting_from_best", "forgetting_from_learned", "drift_clip_t", "likeness_to_base", "single_dino", "multi_dino",
    "identity_top1", "identity_map", "drift_cmmd",
    *HEADLINE,
)  # fmt: skip
COSTS = (*COSTS_OF_A_RUN, "seconds_per_picture")
OF_A_DEVICE = ("training_seconds", "fusion_seconds", "peak_memory_mb", "resident_memory_mb", "seconds_per_picture")
RUN_COLUMNS = ("method", "set", "seed", "learned", *QUALITY, *COSTS, DEVICE)
KIND_COLUMNS = ("method", "set", "kind", "runs", "single_clip_i", "single_clip_t", "several_clip_i", "several_clip_t")
SAME_CLASS_COLUMNS = ("method", "set", "asked", "compared_with", "runs", "clip_i")
CONFUSION_COLUMNS = ("method", "set", "asked", "seen_as", "runs", "share")
COLUMNS = ("method", "runs", *(name for each in QUALITY for name in (each, f"{each}_spread")), *COSTS)


def figures_of(scores: dict[str, Any]) -> Figures:
    """Returns the quality figures of one evaluation; ``multi`` is the mean of double and triple.

    Those of the curve are there for the class word alone: a run's depend on it (`curves.with_headline`).
    """
    groups, drift, identity = scores["groups"], scores.get("drift", {}), scores.get("identity", {})
    several = [groups[name] for name in ("double", "triple") if name in groups]
    found: Figures = {}
    for figure in ("clip_i", "clip_t", "dino"):
        found[f"single_{figure}"] = groups.get("single", {}).get(figure)
        values = [each[figure] for each in several if figure in each]
        found[f"multi_{figure}"] = statistics.fmean(values) if values else None
    there = [each["all_there"] for each in several if "all_there" in each]
    found["all_there"] = statistics.fmean(there) if there else None
    for name in ("forgetting_from_best", "forgetting_from_learned"):
        found[name] = scores.get(name)
    found |= {name: scores.get(name) for name in HEADLINE}
    found |= {"drift_clip_t": drift.get("clip_t_change"), "likeness_to_base": drift.get("likeness_to_base")}
    found |= {"identity_top1": identity.get("top1"), "identity_map": identity.get("mean_average_precision")}
    return {**found, "drift_cmmd": drift.get("cmmd")}


def row(method: str, quality: Sequence[Figures], costs: Sequence[Figures]) -> dict[str, Any]:
    """Returns a row: means, and the standard deviation over runs where there are several."""
    cells: dict[str, Any] = {"method": method, "runs": len(quality)}
    for name in QUALITY:
        values = [each for each in (figures.get(name) for figures in quality) if each is not None]
        cells[name] = statistics.fmean(values) if values else None
        cells[f"{name}_spread"] = statistics.stdev(values) if len(values) > 1 else None
    has_one_device = len({figures[DEVICE] for figures in costs if figures.get(DEVICE)}) <= 1
    for name in COSTS:
        values = [each for each in (figures.get(name) for figures in costs) if each is not None]
        # A mean of a GPU's seconds and a processor's would say nothing.
        is_comparable = bool(values) and (has_one_device or name not in OF_A_DEVICE)
        cells[name] = statistics.fmean(values) if is_comparable else None
    return cells


def scores_of(run: Run) -> dict[str, Any]:
    """Returns what `test` wrote of a finished run."""
    return read_json(RunFolder(run.folder).evaluation / "scores.json")


def rows_by_run(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Returns one row per finished run: what it was, its quality and its costs."""
    rows = []
    for run in runs:
        scores = scores_of(run)
        own = {"method": run.method, "set": run.set_name, "seed": run.seed, "learned": " ".join(scores["learned"])}
        rows.append(
            {**own, **figures_of(scores), **scores["costs"], "seconds_per_picture": scores["seconds_per_picture"]}
        )
    return rows


def rows_by_kind(runs: Iterable[Run], class_word: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns a row for every method, set and kind of concept: means over the runs, for one and for several concepts.

    Args:
        runs: finished ones.
        class_word: sets, and scores of the class word on the base model for each.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        found.setdefault((run.method, run.set_name), []).append(scores_of(run))
    found |= {(CLASS_WORD, name): [scores] for name, scores in class_word}
    rows = []
    for (method, name), of_runs in found.items():
        parts = (("single", "kinds"), ("several", "kinds_of_several"))
        for kind in dict.fromkeys(kind for scores in of_runs for _, part in parts for kind in scores[part]):
            cells: dict[str, Any] = {"method": method, "set": name, "kind": kind}
            cells["runs"] = sum(any(kind in scores[part] for _, part in parts) for scores in of_runs)
            for column, part in parts:
                for figure in ("clip_i", "clip_t"):
                    values = [scores[part][kind][figure] for scores in of_runs if kind in scores[part]]
                    cells[f"{column}_{figure}"] = statistics.fmean(values) if values else None
            rows.append(cells)
    return rows


def rows_within_class(runs: Iterable[Run], class_word: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns one row for each two concepts of one class: how alike pictures of one are to those of the other.

    Means over the runs; a concept is compared with itself first.

    Args:
        runs: finished ones.
        class_word: sets, and scores of the class word on the base model for each: what there is before anything is
            learned.
    """
    return _rows_of_two(runs, class_word, lambda scores: scores["same_class"], SAME_CLASS_COLUMNS)


def rows_of_confusion(runs: Iterable[Run], class_word: Iterable[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns a row for each method, set, asked concept and label that its pictures can be taken for.

    The share of pictures is the mean over runs.

    Args:
        runs: finished runs.
        class_word: sets, and scores of the class word on the base model for each.
    """
    return _rows_of_two(runs, class_word, lambda scores: scores["identity"]["confusion"], CONFUSION_COLUMNS)


def _rows_of_two(
    runs: Iterable[Run],
    class_word: Iterable[tuple[str, dict[str, Any]]],
    part: Callable[[dict[str, Any]], dict[str, dict[str, float]]],
    columns: Sequence[str],
) -> list[dict[str, Any]]:
    """Returns the means over runs of a part of the scores that has a figure for two names, in the given columns."""
    found: dict[tuple[str, str, str, str], list[float]] = {}
    scored = [(run.method, run.set_name, scores_of(run)) for run in runs]
    for method, name, scores in [*scored, *((CLASS_WORD, name, scores) for name, scores in class_word)]:
        for asked, figures in part(scores).items():
            for other, value in figures.items():
                found.setdefault((method, name, asked, other), []).append(value)
    return [
        dict(zip(columns, (*names, len(values), statistics.fmean(values)), strict=True))
        for names, values in found.items()
    ]


def rows_of(
    by_run: Iterable[dict[str, Any]], class_word: Sequence[dict[str, Any]], in_words: Sequence[dict[str, Any]] = ()
) -> list[dict[str, Any]]:
    """Returns the rows of the table: methods in order, then the bounds.

    Args:
        by_run: rows of the runs, from `rows_by_run`.
        class_word: scores of the class word on the base model, one a set.
        in_words: scores of the concepts' descriptions on the base model, one a set that has them.
    """
    of_method: dict[str, list[Figures]] = {}
    for each in by_run:
        of_method.setdefault(each["method"], []).append(each)
    names = [*(name for name in of_method if name != ALONE), *(name for name in of_method if name == ALONE)]
    rows = [row(name, of_method[name], of_method[name]) for name in names]
    rows.append(row(CLASS_WORD, [figures_of(scores) for scores in class_word], []))
    return rows if not in_words else [*rows, row(IN_WORDS, [figures_of(scores) for scores in in_words], [])]


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Returns the table in Markdown, spreads behind a plus-minus sign."""
    known = [name for name in QUALITY if any(cells[name] is not None for cells in rows)]
    names = ("method", "runs", *known, *COSTS)
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    for cells in rows:
        shown = [str(cells["method"]), str(cells["runs"])]
        for name in known:
            spread = cells[f"{name}_spread"]
            shown.append("" if cells[name] is None else f"{cells[name]:.3f}" + (f" ± {spread:.3f}" if spread else ""))
        shown += ["" if cells[name] is None else f"{cells[name]:.4g}" for name in COSTS]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join([*lines, ""])
