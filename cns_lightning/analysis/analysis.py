"""An analysis of a run, or of a base model alone: facts, tables, pictures, and the files they become."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cns_lightning.analysis import concepts, plots, sensitivity
from cns_lightning.analysis.similarity import said, similarity, spearman
from cns_lightning.diffusion.text import token_ids
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.neurons.selection import general_neurons, vote_counts
from cns_lightning.sequences.sequence import Concept
from cns_lightning.sequences.templates import scoring_prompts
from cns_lightning.storage import csv_bytes, write_atomically, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

    from cns_lightning.analysis.queries import Family
    from cns_lightning.neurons.selector import NeuronSelector
    from cns_lightning.registry.record import ConceptRecord


@dataclass
class Analysis:
    """What has been found so far.

    Attributes:
        facts: for ``analysis.json``, by part.
        tables: rows by name, each becomes a CSV file.
        figures: pictures by name, each becomes a PNG and an SVG file.
        lines: sentences that say what was found.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Writes ``analysis.json``, the tables and the pictures; raises what `write_atomically` raises."""
        write_json(folder / "analysis.json", self.facts)
        for name, rows in self.tables.items():
            write_atomically(folder / f"{name}.csv", csv_bytes(rows))
        for name, figure in self.figures.items():
            for file, content in plots.files_of(name, figure).items():
                write_atomically(folder / file, content)

    # ---- of a base model --------------------------------------------------------------------------------------------

    def add_similarity(self, selector: NeuronSelector, families: Sequence[Family], general: NeuronMask) -> None:
        """Compares the neurons of queries, and says whether those that share more words share more neurons."""
        found = {family.name: similarity(selector, family, general) for family in families}
        rows = [
            {"family": family.name, "neurons": matrix.which, "one": one, "other": other,
             "words_differing": int(matrix.words[one - 1, other - 1]), "iou": float(matrix.iou[one - 1, other - 1])}
            for family in families
            for matrix in found[family.name]
            for one in range(1, len(family.queries) + 1)
            for other in range(1, len(family.queries) + 1)
        ]  # fmt: skip
        self.tables["similarity"] = rows
        both = {which: [each for pair in found.values() for each in pair if each.which == which]
                for which in ("base", "concept")}  # fmt: skip
        self.facts["similarity"] = {
            "queries": {family.name: list(family.queries) for family in families},
            "spearman": {
                which: {"all": spearman(each), **{matrix.family.name: matrix.spearman for matrix in each}}
                for which, each in both.items()
            },
        }
        for number, (name, matrices) in enumerate(found.items(), start=1):
            self.figures[f"similarity-{number}"] = plots.draw_similarity(matrices)
            spoken = ", ".join(f"{matrix.which} neurons {said(matrix.spearman)}" for matrix in matrices)
            self.lines.append(f"similarity of {name}: Spearman of words that differ and overlap: {spoken}")
        self.figures["similarity-decay"] = plots.draw_decay([each for pair in found.values() for each in pair])

    # ---- of a run's concepts ----------------------------------------------------------------------------------------

    def add_concepts(
        self, masks: Mapping[str, NeuronMask], classes: Mapping[str, str], parameters: Mapping[str, int]
    ) -> None:
        """Says what the concepts moved, what they have in common, where it lies, and what is left.

        Args:
            masks: neurons by token, in learning order.
            classes: class words by token.
            parameters: what they are counted against besides key and value weights, by name.
        """
        rows, common = concepts.shares(masks, parameters), concepts.overlap(masks, classes)
        places, room = concepts.places(masks), concepts.capacity(masks)
        self.tables |= {"shares": rows, "overlap": common["pairs"], "places": places, "capacity": room}
        blocks = {
            token: {" ".join(key): share for key, share in concepts.shares_of_blocks(places, token).items()}
            for token in masks
        }
        self.facts |= {"shares": rows, "overlap": common, "places": blocks, "capacity": room}
        self.figures |= {
            "shares": plots.draw_shares(rows),
            "overlap": plots.draw_overlap(list(masks), common["pairs"]),
            "places": plots.draw_places(places),
            "capacity": plots.draw_capacity(room),
        }
        for row in rows:
            of_all = "".join(f", {100 * row[f'{name}_share']:.3f} % of the {name}" for name in parameters)
            self.lines.append(
                f"{row['concept']}: {100 * row['key_value_share']:.2f} % of key and value weights{of_all}"
            )
        self.lines += _overlap_lines(common)
        last = room[-1]
        self.lines.append(
            f"after {len(room)} concepts {100 * last['untouched']:.1f} % of key and value weights are untouched, "
            f"{100 * last['fullest_row']:.1f} % of the fullest row"
        )

    def add_sensitivity(
        self,
        selector: NeuronSelector,
        records: Sequence[ConceptRecord],
        prompts: Sequence[str],
        threshold: float,
        words: Sequence[str] = (),
    ) -> None:
        """Selects the concepts' neurons again, as the run does and with other settings.

        Args:
            selector: selects neurons of the base model, with the settings of the run.
            records: the concepts that neurons were selected for, whose tokens start from one word each.
            prompts: calibration prompts.
            threshold: threshold of the vote.
            words: rare words of the run, best first; empty where tokens do not start from any.
        """
        weights, share = selector.weights, selector.rules.share
        of_concepts = torch.stack([concept_norms(selector, record) for record in records])
        of_prompts = torch.stack([selector.norms([prompt]) for prompt in prompts])
        votes = vote_counts(weights, of_prompts, share)
        rows = [
            *sensitivity.of_shares(weights, of_concepts, of_prompts, threshold),
            *sensitivity.of_thresholds(weights, of_concepts, votes, len(of_prompts), share),
            *sensitivity.of_prompts(weights, of_concepts, of_prompts, threshold, share),
        ]
        general = general_neurons(votes, len(of_prompts), threshold)
        anew = sensitivity.selected(weights, of_concepts, share, general)
        trained = [record.mask for record in records if record.mask is not None]
        alike = statistics.fmean(one.iou(two) for one, two in zip(anew, trained, strict=True))
        self.tables["sensitivity"] = rows
        halves = sensitivity.of_halves(weights, of_concepts, of_prompts, threshold, share)
        orders = []
        if len(records) > 1 and all(record.rare_words for record in records) and len(words) >= len(records):
            orders = sensitivity.of_orders(
                weights,
                lambda starts: torch.stack([concept_norms(selector, each, starts[each.token]) for each in records]),
                {record.token: record.rare_words[0] for record in records},
                words,
                general,
                share,
            )
        rows += orders
        self.facts["sensitivity"] = {
            "rows": rows,
            "halves_of_prompts": halves,
            "anew": {"concepts": len(trained), "iou_with_trained": alike},
        }
        self.figures["sensitivity"] = plots.draw_sensitivity(rows)
        for row in rows:
            if row["changed"] == "prompts":
                self.lines.append(
                    f"{row['value']:.0f} calibration prompts: IoU with those of all {len(of_prompts)} "
                    f"{row['general_iou']:.3f} (general), {row['concept_iou']:.3f} (concept neurons)"
                )
        self.lines.append(
            f"one half of the prompts against the other: IoU {halves['general_iou']:.3f} (general), "
            f"{halves['concept_iou']:.3f} (concept neurons)"
        )
        self.lines.append(
            f"neurons of {len(trained)} concepts selected anew: IoU {alike:.3f} with those trained; less than 1 "
            "where the run chose others on purpose or tokens started from noise"
        )
        if orders:
            alike, overlap = (statistics.fmean(row[key] for row in orders) for key in ("concept_iou", "mean_pairwise"))
            self.lines.append(
                f"in {len(orders)} other orders of the concepts: IoU {alike:.3f} of a concept's neurons with those in "
                f"the run's order, as its token starts from another rare word; {overlap:.3f} of two concepts"
            )


def _overlap_lines(common: Mapping[str, Any]) -> list[str]:
    def number(value: float | None) -> str:
        return "none" if value is None else f"{value:.3f}"

    paper = common["paper"]
    return [
        f"overlap of two concepts (IoU): mean {number(common['mean_pairwise'])} (paper {paper['mean_pairwise']}); "
        f"of one class {number(common['same_class'])}, of different classes {number(common['different_class'])}; "
        f"of as many random neurons {number(common['chance'])}",
        f"overlap of all concepts: {number(common['joint'])} (paper {paper['joint']})",
    ]


def concept_norms(selector: NeuronSelector, record: ConceptRecord, word: str = "") -> torch.Tensor:
    """Returns the feature norms of a concept as they were when its neurons were selected, shape (columns,).

    Its token had just started from its rare word, which stands in for it here; from its class word where it started
    from that.

    Args:
        selector: selects neurons of the base model.
        record: the concept.
        word: another word for its token to start from.
    """
    word = word or (record.rare_words[0] if record.rare_words else record.class_word)
    stand_in = Concept(word, record.class_word, record.kind, Path())
    return selector.norms(scoring_prompts(stand_in, selector.templates), token_ids(selector.base.tokenizers[0], word))
