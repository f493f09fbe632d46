"""After every stage: how well the concepts learned so far are still drawn, while the sequence is being learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from cns_lightning.evaluation.evaluate import Evaluation
from cns_lightning.evaluation.judges import clip_encoder, judge_of
from cns_lightning.evaluation.monitor import StageScores
from cns_lightning.evaluation.scored_with import judged_by
from cns_lightning.evaluation.settings import EvaluationSettings
from cns_lightning.module import continual
from cns_lightning.progress import ProgressDisplay
from cns_lightning.ranges import Amount, Count, NonNegative
from cns_lightning.registry.fused import fusion_text
from cns_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

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
            name = self.judge or judge_of(continual(pl_module).base_model)
            self._encoder = clip_encoder(name, pl_module.device, "monitor.judge")
            self._judged_by = judged_by(name, self._encoder)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws and scores the stage that has just ended."""
        if self.pictures == 0:
            return
        module, folder = continual(pl_module), RunFolder(trainer.default_root_dir)
        evaluation = Evaluation(folder.evaluation / "images", module.sequence, module.registry, self._settings(module))
        stage, rank, ranks = evaluation.last, trainer.global_rank, trainer.world_size
        share = evaluation.pictures_of(stage).missing(evaluation.after_stage()[rank::ranks])
        evaluation.draw_state(stage, module.base.pipeline(), share)
        self._draw_look_alikes(module, evaluation, rank, ranks)
        trainer.strategy.barrier("pictures of the monitor")
        if self._encoder is not None:
            judge = self.judge or judge_of(module.base_model)
            scores = StageScores(folder.evaluation / "monitor.json", evaluation, judge, self._encoder, self._judged_by)
            ProgressDisplay(folder.log).event(scores.write())

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

    def _settings(self, module: ContinualPersonalization) -> EvaluationSettings:
        return EvaluationSettings(
            matrix_pictures=self.pictures,
            steps=self.steps,
            guidance=self.guidance,
            batch_size=self.batch_size,
            names_class_word=module.method.names_class_word,
            fusion=fusion_text(module.method),
            look_alikes=self.look_alikes,
            templates=module.data.templates,
            precision=module.base_dtype,
        )
