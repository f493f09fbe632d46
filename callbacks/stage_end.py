"""When a stage's last step is taken: what it learned is kept and folded into the model, before anyone looks at it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from lightning.pytorch import Callback

from cns_lightning.errors import UserError
from cns_lightning.evaluation.best_step import Candidate, best_candidate, mean_likeness
from cns_lightning.evaluation.evaluate import reference_vectors
from cns_lightning.evaluation.judges import clip_encoder, judge_of
from cns_lightning.module import continual
from cns_lightning.progress import ProgressDisplay
from cns_lightning.ranges import Count, NonNegative
from cns_lightning.registry.record import KEPT_STEP
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.folder import RunFolder
from cns_lightning.training.candidate_pictures import draw_candidate

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor

    from cns_lightning.evaluation.metrics import ClipEncoder
    from cns_lightning.module import ContinualPersonalization
    from cns_lightning.registry.record import ConceptRecord

Keep = Literal["last", "best"]


class StageEnd(Callback):
    """Finishes every stage, on every rank, before the callbacks that compare, draw, score and save.

    Acts in ``on_train_epoch_end``, after timer and progress, so that a fusion counts as the stage's finish phase. Keeps
    no state.

    Args:
        keep: which step of a stage is kept: the ``last``; or the ``best``, of the snapshots (``snapshots.steps``) and
            the last: the one whose pictures are most like the concept's photos (CLIP-I) among those at which no earlier
            concept is less well drawn than before the stage; the last where there is none.
        tolerance: by how much the CLIP-I of an earlier concept may be lower than before the stage.
        pictures: pictures of the training prompt of every concept, with each of the candidates; the seeds are 0, 1, ...
        judge: a CLIPModel folder or hub id; None takes the one that suits the base model.
        steps: number of steps of the sampler; that of the samples.
        guidance: scale of classifier-free guidance; that of the samples.
    """

    def __init__(
        self,
        keep: Keep = "last",
        tolerance: NonNegative = 0.02,
        pictures: Count = 4,
        judge: str | None = None,
        steps: Count = 25,
        guidance: NonNegative = 7.5,
    ) -> None:
        self.keep: Keep = keep
        self.tolerance, self.pictures, self.judge = tolerance, pictures, judge
        self.steps, self.guidance = steps, guidance
        self._encoder: ClipEncoder | None = None
        self._photos: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Loads the judge, so that a wrong one stops the run before any long work.

        Raises:
            UserError: if it is not there.
        """
        if self.keep == "best" and trainer.is_global_zero:
            name = self.judge or judge_of(continual(pl_module).base_model)
            self._encoder = clip_encoder(name, pl_module.device, "stage_end.judge")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the record of the stage in the registry and folds it into the model.

        Raises:
            UserError: if a snapshot, or photos, are missing or damaged.
        """
        module = continual(pl_module)
        if self.keep == "last":
            module.finish_stage()
        else:
            module.finish_stage(lambda record: self._best(module, record))

    def _best(self, module: ContinualPersonalization, last: ConceptRecord) -> ConceptRecord:
        """Returns the record that is kept; it says of which step it is."""
        trainer, concepts = module.trainer, module.sequence.concepts[: module.stage + 1]
        # Rank 0 wrote the snapshots, and a shared folder may show them late to others.
        found = self._snapshots(module) if trainer.is_global_zero else {}
        records = {**trainer.strategy.broadcast(found), module.step: last}
        start = self._likeness(module, None, [each.token for each in concepts[:-1]])
        candidates = []
        for step, record in records.items():
            *earlier, own = self._likeness(module, record, [each.token for each in concepts])
            candidates.append(Candidate(step, own, tuple(earlier)))
        chosen = best_candidate(candidates, start, self.tolerance)
        step = trainer.strategy.broadcast(chosen.step)
        if trainer.is_global_zero:
            said = f"{last.token}: kept as it was after step {step} of {module.step}, CLIP-I {chosen.own:.3f}"
            others = "" if chosen is candidates[-1] else f"; after the last {candidates[-1].own:.3f}"
            if not chosen.holds(start, self.tolerance):
                others = "; no step held the earlier concepts"
            ProgressDisplay(RunFolder(trainer.default_root_dir).log).event(said + others)
        kept = records[step]
        return replace(kept, metadata={**kept.metadata, KEPT_STEP: str(step)})

    def _snapshots(self, module: ContinualPersonalization) -> dict[int, ConceptRecord]:
        """Returns what the running stage was after earlier steps, ascending."""
        folder, token, found = RunFolder(module.trainer.default_root_dir), module.concept.token, {}
        for steps in [each for each in folder.snapshot_steps() if each < module.step]:
            registry = NeuronRegistry.load(folder.snapshot(steps))
            if token in registry.tokens:
                found[steps] = registry.record(token)
        return found

    def _likeness(
        self, module: ContinualPersonalization, record: ConceptRecord | None, tokens: list[str]
    ) -> list[float]:
        """Computes CLIP-I of concepts as the model would draw them; every rank draws, rank 0 scores, others get 0."""
        prompts = [listed[0] for listed in module.method.context.prompts[: len(tokens)]]
        pairs = [(prompt, seed) for prompt in prompts for seed in range(self.pictures)]
        drawn = draw_candidate(module, record, pairs, self.steps, self.guidance) if pairs else []
        if self._encoder is None:
            return [0.0] * len(tokens)
        found = []
        for number, token in enumerate(tokens):
            if token not in self._photos:
                concept = module.sequence.concepts[number]
                self._photos |= reference_vectors([concept], self._encoder)
            own = drawn[number * self.pictures : (number + 1) * self.pictures]
            found.append(mean_likeness(self._encoder.images(own), self._photos[token]))
        return found


def check_keep(keep: str, snapshots: list[int] | None, method: type) -> None:
    """Refuses to keep the best step where there are no snapshots to choose from, or where the method fuses concepts.

    Args:
        keep: which step is kept.
        snapshots: optimizer steps of the snapshots.
        method: class of the method.

    Raises:
        UserError: if it cannot be chosen.
    """
    if keep == "last":
        return
    if not snapshots:
        remedy = "Give --snapshots.steps, such as [100, 200, 400]; the end of a stage is one of the candidates anyway"
        raise UserError("--stage_end.keep", "is best, and no snapshots are taken to choose from", remedy)
    if getattr(method, "fuses", False):
        problem = f"is best, and {method.__name__} fuses its concepts, so that no stage changes an earlier concept"
        raise UserError("--stage_end.keep", problem, "Leave it out; test scores the snapshots")
