"""Analyses finished CNS runs and puts the supplement's analyses side by side with the paper's figures.

Runs `analyze` on each run; then writes the section `analysis` of a document, and beside it the
pictures of the first run: overlap against words that differ, and where concepts live.

``python -m benchmarks.analysis --runs runs/compare/cns/*/seed-0 --out docs/analysis.md``
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.scoring import check_section, write_section
from cns_lightning.analysis.concepts import ALL
from cns_lightning.analysis.similarity import said
from cns_lightning.cli.main import main as command_line
from cns_lightning.neurons.overlap import PAPER
from cns_lightning.runs.config import RunConfig
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_json

PICTURES = ("similarity-1", "similarity-decay", "places", "capacity")
"""Of the first run, copied beside the document."""


def analysis_of(run: Path) -> dict[str, Any]:
    """Makes the analysis of a run, whatever was analysed of it before, and returns it.

    Raises:
        RuntimeError: if `analyze` fails.
    """
    if command_line(["analyze", "--run", str(run)]) != 0:
        raise RuntimeError(f"{run} cannot be analysed")
    return read_json(RunFolder(run).analysis / "analysis.json")


def of_queries(found: dict[str, Any]) -> list[str]:
    """Returns the table of the rank correlations between words that differ and overlap."""
    lines = ["| queries | base neurons | concept neurons |", "|---|---|---|"]
    correlations = found["similarity"]["spearman"]
    for family in correlations["base"]:
        cells = [said(correlations[which][family]) for which in ("base", "concept")]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    return lines


def of_concepts(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Returns the table of shares and overlap, one column per run, beside the paper's figures."""

    def mean_share(found: dict[str, Any], name: str) -> float:
        return statistics.fmean(row[name] for row in found["shares"] if row["concept"] != ALL)

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    def overlap(key: str) -> list[str]:
        return [number(each["overlap"][key]) for each in runs.values()]

    def left(key: str) -> list[str]:
        return [f"{each['capacity'][-1][key]:.1%}" for each in runs.values()]

    def shares(key: str) -> list[str]:
        return [f"{mean_share(each, key):.2%}" for each in runs.values()]

    together = [f"{each['shares'][-1]['key_value_share']:.2%}" for each in runs.values()]
    rows = [
        ("of key and value weights, a concept", shares("key_value_share"), f"{PAPER['key_value_share']:.0%}"),
        ("of the UNet, a concept", shares("unet_share"), f"{PAPER['unet_share']:.2%}"),
        ("of the whole pipeline, a concept", shares("pipeline_share"), ""),
        ("of key and value weights, all together", together, ""),
        ("IoU of two concepts, mean", overlap("mean_pairwise"), f"{PAPER['mean_pairwise']}"),
        ("of two of one class", overlap("same_class"), ""),
        ("of two of different classes", overlap("different_class"), ""),
        ("of two with as many random neurons", overlap("chance"), ""),
        ("IoU of all", overlap("joint"), f"{PAPER['joint']}"),
        ("untouched after the last concept", left("untouched"), ""),
        ("the same, in the fullest row", left("fullest_row"), ""),
    ]
    lines = [f"| | {' | '.join(runs)} | paper |", "|---" * (len(runs) + 2) + "|"]
    return lines + [f"| {what} | {' | '.join(cells)} | {paper} |" for what, cells, paper in rows]


def of_settings(found: dict[str, Any]) -> list[str]:
    """Returns the table of what the selection depends on, for one run."""
    lines = ["| setting | density | IoU of two | general neurons: IoU with those of all prompts |", "|---|---|---|---|"]
    for row in found["sensitivity"]["rows"]:
        overlap = "" if row["mean_pairwise"] is None else f"{row['mean_pairwise']:.3f}"
        general = f"{row['general_iou']:.3f}" if "general_iou" in row else ""
        lines.append(f"| {row['changed']} {row['value']:g} | {row['density']:.2%} | {overlap} | {general} |")
    halves, anew = found["sensitivity"]["halves_of_prompts"], found["sensitivity"]["anew"]
    orders = [row for row in found["sensitivity"]["rows"] if row["changed"] == "order"]
    alike = statistics.fmean(row["concept_iou"] for row in orders) if orders else float("nan")
    return [
        *lines,
        "",
        f"One half of the calibration prompts against the other: IoU {halves['general_iou']:.3f} of the general, "
        f"{halves['concept_iou']:.3f} of the concept neurons. Selected anew, the IoU of the neurons with those that "
        f"were trained is {anew['iou_with_trained']:.3f}. In {len(orders)} other orders of the concepts it is "
        f"{alike:.3f}: a token starts from the first rare word that is left, and another word has other neurons.",
    ]


def main() -> None:
    """Reads the command line, analyses the runs, and writes the document's section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", type=Path, required=True, help="run folders of CNS")
    parser.add_argument("--out", type=Path, help="document whose section `analysis` is replaced")
    arguments = parser.parse_args()
    if arguments.out:
        check_section(arguments.out, "analysis")
    runs = {}
    for run in arguments.runs:
        config = RunConfig.find(RunFolder(run))
        name = run.parent.name if config is None else config.sequence["name"]
        if name in runs:
            name = f"{name}, {run.name}"
        runs[name] = analysis_of(run)
    first = next(iter(runs.values()))
    text = "\n\n".join(
        [
            f"`{' '.join(['python -m benchmarks.analysis', *sys.argv[1:]])}`",
            "**Do queries that share words share neurons?** Spearman's rank correlation over pairs of queries between "
            "the number of words by which they differ and the IoU of their neurons; -1 would mean that the fewer words "
            "differ, the more the neurons overlap, without exception.",
            "\n".join(of_queries(first)),
            "![overlap of eleven queries, each but a word like the one before](analysis-similarity-1.png)",
            "![overlap against the words by which two queries differ](analysis-similarity-decay.png)",
            "**What concepts move and share.**",
            "\n".join(of_concepts(runs)),
            "![in which blocks the neurons of each concept lie](analysis-places.png)",
            "![what is left untouched after each concept](analysis-capacity.png)",
            "**What the selection depends on**, for the concepts of the first run.",
            "\n".join(of_settings(first)),
            "",
        ]
    )
    print(text)
    if arguments.out:
        write_section(arguments.out, "analysis", text)
        for name in PICTURES:
            source = RunFolder(arguments.runs[0]).analysis / f"{name}.png"
            shutil.copyfile(source, arguments.out.parent / f"analysis-{name}.png")


if __name__ == "__main__":
    main()
