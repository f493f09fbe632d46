"""What becomes of every concept from stage to stage, in ``evaluation/monitor.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cns_lightning.evaluation.evaluate import figures_of_matrix, reference_vectors
from cns_lightning.evaluation.identity import confusion, identity_scores
from cns_lightning.evaluation.score_table import ScoreTable, likeness
from cns_lightning.storage import read_json, sha256_of_facts, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from cns_lightning.evaluation.evaluate import Evaluation
    from cns_lightning.evaluation.metrics import ClipEncoder


@dataclass(frozen=True)
class StageScores:
    """The stages so far, each scored when it had ended.

    Args:
        path: ``monitor.json``.
        evaluation: evaluation of the run, as far as it is learned.
        judge: name of the judge.
        encoder: the judge.
        judged_by: facts for ``scored_with``.
    """

    path: Path
    evaluation: Evaluation
    judge: str
    encoder: ClipEncoder
    judged_by: dict[str, Any]

    def score(self) -> dict[str, Any]:
        """Scores the pictures of the last stage, which are drawn already; returns its row."""
        evaluation, pairs, vectors = self.evaluation, self.evaluation.after_stage(), None
        concepts = [each for each in evaluation.sequence.concepts if each.token in evaluation.tokens]
        references = reference_vectors(concepts, self.encoder)
        table = ScoreTable(concepts)
        if pairs:
            vectors = self.encoder.images(evaluation.pictures_of(evaluation.last).read(pairs))
            table.add(pairs, vectors, references, self.encoder)
        alike = evaluation.look_alikes.encode(evaluation.tokens, self.encoder)
        gallery = evaluation.look_alikes.gallery(evaluation.tokens, references, alike)
        return {
            "stage": evaluation.last,
            "model": evaluation.pictures_of(evaluation.last).model,
            "asked": self._asked(evaluation.last),
            "pictures": evaluation.settings.matrix_pictures,
            "clip_i": [likeness(token, pairs, vectors, references[token]) for token in evaluation.tokens],
            "groups": table.result()["groups"],
            "identity": {**identity_scores(pairs, vectors, gallery), "confusion": confusion(pairs, vectors, gallery)},
        }

    def write(self) -> str:
        """Scores the last stage, enters it in the file, and returns a line that says how it went.

        Rows of a run that was undone since, or scored otherwise, are dropped.

        Raises:
            UserError: if the file is damaged or cannot be written.
        """
        last, pictures = self.evaluation.last, self.evaluation.settings.matrix_pictures
        earlier: list[dict[str, Any]] = read_json(self.path)["stages"] if self.path.exists() else []
        rows = [row for row in earlier if row["stage"] < last and self._stands(row)]
        rows = [*sorted(rows, key=lambda row: row["stage"]), self.score()]
        is_whole = len(rows) == last + 1 and all(row["pictures"] == pictures for row in rows)
        figures = figures_of_matrix([row["clip_i"] for row in rows]) if is_whole else {}
        write_json(self.path, {"scored_with": self.judged_by, "stages": rows, **figures})
        return self._line(rows[-1], figures.get("forgetting_from_learned"))

    def _stands(self, row: dict[str, Any]) -> bool:
        model = self.evaluation.pictures_of(row["stage"]).model
        return row["model"] == model and row.get("asked") == self._asked(row["stage"])

    def _asked(self, stage: int) -> str:
        """Returns a checksum of what the figures after a stage depend on besides the model."""
        evaluation, settings = self.evaluation, self.evaluation.settings
        prompts = [(each.group, each.number, each.prompt, each.text) for each in evaluation.questions(stage)]
        alike = [(each.prompt, seed) for each, seed in evaluation.look_alikes.pairs(evaluation.tokens[: stage + 1])]
        facts = [self.judge, settings.steps, settings.guidance, prompts, alike]
        return sha256_of_facts(facts)

    def _line(self, row: dict[str, Any], forgotten: float | None) -> str:
        known = zip(self.evaluation.tokens, row["clip_i"], strict=True)
        scores = " ".join(f"{token} {score:.3f}" for token, score in known if score is not None)
        lost = "" if forgotten is None else f"; forgetting {forgotten:+.3f}"
        top1 = row["identity"]["top1"]
        identity = "" if top1 is None else f"; identity top-1 {top1:.3f}"
        return f"CLIP-I after stage {row['stage']}: {scores}{lost}{identity}"
