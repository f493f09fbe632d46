"""After every stage: how well the concepts learned so far are still drawn, while the sequence is being learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from cns_lightning.evaluation.evaluate import (
    Evaluation,
    Settings,
    Table,
    figures_of_matrix,
    likeness,
    reference_vectors,
)
from cns_lightning.evaluation.identity import identity_scores
from cns_lightning.evaluation.judges import clip_encoder, judge_of
from cns_lightning.evaluation.scored_with import judged_by
from cns_lightning.progress import ProgressDisplay
from cns_lightning.ranges import Amount, Count, NonNegative
from cns_lightning.registry.fused import fusion_text
from cns_lightning.runs.folder import RunFolder
from cns_lightning.storage import read_json, sha256_of_facts, write_json

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from cns_lightning.evaluation.evaluate import Pair
    from cns_lightning.evaluation.metrics import ClipEncoder
    from cns_lightning.module import ContinualPersonalization


class ForgettingMonitor(Callback):
    """Asks what concerns the concepts so far, and writes what became of each to ``evaluation/monitor.json``.

    Draws the sequence's prompts that name learned concepts alone; those of one concept tell forgetting.

    Acts in ``on_train_epoch_end``: every rank draws its share, rank 0 scores and writes. The pictures are those that
    ``test`` would draw of the same prompts, in its places: it finds them there, if the base model is held in float32 as
    it loads it. Keeps no state; pictures that are there already are not drawn again.

    Args:
        pictures: number of pictures of every prompt; the seeds are 0, 1, ...; 0 draws and scores nothing.
        judge: a CLIPModel folder or hub id; None takes the one that suits the base model.
        batch_size: pictures drawn at once.
        steps: number of steps of the sampler; that of the samples.
        guidance: scale of classifier-free guidance; that of the samples.
        look_alikes: pictures of every class of a learned concept in the gallery of `identity_scores`, drawn with the
            pretrained weights; 0 keeps stages cheap, with a gallery of the user's photos alone.
    """

    def __init__(
        self,
        pictures: Amount = 0,
        judge: str | None = None,
        batch_size: Count = 8,
        steps: Count = 25,
        guidance: NonNegative = 7.5,
        look_alikes: Amount = 0,
    ) -> None:
        self.pictures, self.judge, self.batch_size = pictures, judge, batch_size
        self.steps, self.guidance, self.look_alikes = steps, guidance, look_alikes
        self._encoder: ClipEncoder | None = None
        self._judged_by: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Loads the judge, so that a wrong one stops the run before any long work.

        Raises:
            UserError: if it is not there.
        """
        if self.pictures and trainer.is_global_zero:
            name = self.judge or judge_of(_continual(pl_module).base_model)
            self._encoder = clip_encoder(name, pl_module.device, "monitor.judge")
            self._judged_by = judged_by(name, self._encoder)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws and scores the stage that has just ended."""
        module = _continual(pl_module)
        module.finish_stage()
        if self.pictures == 0:
            return
        folder = RunFolder(trainer.default_root_dir)
        evaluation = Evaluation(folder.evaluation / "images", module.sequence, module.registry, self._settings(module))
        stage = evaluation.last
        pairs = self._pairs(evaluation)
        share = evaluation.pictures_of(stage).missing(pairs[trainer.global_rank :: trainer.world_size])
        evaluation.draw_state(stage, module.base.pipeline(), share)
        self._draw_look_alikes(module, evaluation, trainer.global_rank, trainer.world_size)
        trainer.strategy.barrier("pictures of the monitor")
        if trainer.is_global_zero:
            self._write(folder, evaluation, self.judge or judge_of(module.base_model))

    def _draw_look_alikes(
        self, module: ContinualPersonalization, evaluation: Evaluation, rank: int, ranks: int
    ) -> None:
        place, pairs = evaluation.look_alikes.place, evaluation.look_alikes.pairs(evaluation.tokens)
        missing = place.missing(pairs[rank::ranks])
        for start in range(0, len(missing), self.batch_size):
            batch = missing[start : start + self.batch_size]
            asked = [(question.prompt, seed) for question, seed in batch]
            drawn = module.draw_as_pretrained(asked, self.steps, self.guidance)
            for (question, seed), picture in zip(batch, drawn, strict=True):
                place.write(question, seed, picture)

    def _pairs(self, evaluation: Evaluation) -> list[Pair]:
        asked = evaluation.questions(evaluation.last)
        return [(question, seed) for question in asked for seed in range(self.pictures)]

    def _asked(self, evaluation: Evaluation, stage: int, judge: str) -> str:
        """Returns a checksum of what the figures after a stage depend on besides the model."""
        prompts = [(each.group, each.number, each.prompt, each.text) for each in evaluation.questions(stage)]
        alike = [(each.prompt, seed) for each, seed in evaluation.look_alikes.pairs(evaluation.tokens[: stage + 1])]
        facts = [judge, self.steps, self.guidance, prompts, alike]
        return sha256_of_facts(facts)

    def _settings(self, module: ContinualPersonalization) -> Settings:
        return Settings(
            matrix_pictures=self.pictures,
            steps=self.steps,
            guidance=self.guidance,
            batch_size=self.batch_size,
            names_class_word=module.method.names_class_word,
            fusion=fusion_text(module.method),
            look_alikes=self.look_alikes,
            templates=module.data.templates,
        )

    def _write(self, folder: RunFolder, evaluation: Evaluation, name: str) -> None:
        assert self._encoder is not None
        path = folder.evaluation / "monitor.json"
        earlier: list[dict[str, Any]] = read_json(path)["stages"] if path.exists() else []
        concepts = [each for each in evaluation.sequence.concepts if each.token in evaluation.tokens]
        references = reference_vectors(concepts, self._encoder)
        table, pairs, vectors = Table({each.token: each.kind for each in concepts}), self._pairs(evaluation), None
        if pairs:
            vectors = self._encoder.images(evaluation.pictures_of(evaluation.last).read(pairs))
            table.add(pairs, vectors, references, self._encoder)
        alike = evaluation.look_alikes.encode(evaluation.tokens, self._encoder)
        gallery = evaluation.look_alikes.gallery(evaluation.tokens, references, alike)
        identity = identity_scores(pairs, vectors, gallery)
        scores = [likeness(token, pairs, vectors, references[token]) for token in evaluation.tokens]
        # Rows of a run that was undone since, or scored otherwise, are dropped.
        kept = {
            row["stage"]: row
            for row in earlier
            if row["stage"] < evaluation.last
            and row["model"] == evaluation.pictures_of(row["stage"]).model
            and row.get("asked") == self._asked(evaluation, row["stage"], name)
        }
        kept[evaluation.last] = {
            "stage": evaluation.last, "model": evaluation.pictures_of(evaluation.last).model,
            "asked": self._asked(evaluation, evaluation.last, name),
            "pictures": self.pictures, "clip_i": scores, "groups": table.result()["groups"],
            "identity": identity,
        }  # fmt: skip
        rows = [kept[stage] for stage in sorted(kept)]
        is_whole = len(rows) == evaluation.last + 1 and all(row["pictures"] == self.pictures for row in rows)
        figures = figures_of_matrix([row["clip_i"] for row in rows]) if is_whole else {}
        write_json(path, {"scored_with": self._judged_by, "stages": rows, **figures})
        told = " ".join(
            f"{token} {score:.3f}" for token, score in zip(evaluation.tokens, scores, strict=True) if score is not None
        )
        fallen = figures.get("forgetting_from_learned")
        lost = "" if fallen is None else f"; forgetting {fallen:+.3f}"
        found = "" if identity["top1"] is None else f"; identity top-1 {identity['top1']:.3f}"
        ProgressDisplay(folder.log).event(f"CLIP-I after stage {evaluation.last}: {told}{lost}{found}")


def _continual(module: LightningModule) -> ContinualPersonalization:
    return module  # type: ignore[return-value]
