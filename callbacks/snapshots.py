"""What every concept was after some steps of its own stage, kept beside what it became: points of a learning curve."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback

from cns_lightning.errors import Problems
from cns_lightning.module import continual
from cns_lightning.ranges import Count
from cns_lightning.registry.registry import NeuronRegistry
from cns_lightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class Snapshots(Callback):
    """Keeps, after some optimizer steps of every stage, what the method would keep if the stage ended there.

    Each number of steps has a registry of its own in the run folder, ``snapshots/step-00100``, with every concept as it
    stood after so many steps of its own stage. A later concept was learned on top of the earlier ones as they were when
    their stages had ended, so a snapshot of several concepts mixes the two: it shows what stopping every stage early
    would have kept of each concept, not a sequence that was learned with shorter stages.

    Acts in ``on_train_batch_end``, before anything that saves the run and leaves; rank 0 writes, without a collective.
    Keeps no state: a step that is taken again keeps an equal record in the same place. Touches nothing that is learned,
    unless `StageEnd` keeps the best of them; when a run is continued with other steps, the new registries lack the
    concepts of earlier stages, and `test` leaves them out.

    Args:
        steps: optimizer steps of a stage, each smaller than a whole one; None or an empty list keeps no snapshots.
    """

    def __init__(self, steps: list[Count] | None = None) -> None:
        self.steps = sorted(set(steps or ()))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens what is there already, so that a damaged snapshot stops the run before any long work.

        Raises:
            UserError: if files of a snapshot are missing or damaged.
        """
        module, place = continual(pl_module), RunFolder(trainer.default_root_dir).snapshots
        if module.done_stages == 0 and not module.step:
            # Of a start that never counted, perhaps with other settings: `StageEnd` could take them for the best.
            if trainer.is_global_zero:
                shutil.rmtree(place, ignore_errors=True)
            trainer.strategy.barrier()
        # On every rank, so that all of them stop.
        for steps in self.steps:
            _registry(trainer, pl_module, steps)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Keeps the running concept if it is time.

        Raises:
            UserError: if the files cannot be written.
        """
        module = continual(pl_module)
        if module.step not in self.steps or not module.is_step_end or not trainer.is_global_zero:
            return
        registry = _registry(trainer, pl_module, module.step)
        # It may be ahead of a lost checkpoint; and it lacks earlier concepts if it was asked for after their stages.
        earlier = [concept.token for concept in module.sequence.concepts[: module.stage]]
        for token in [each for each in registry.tokens if each not in earlier]:
            registry.remove(token)
        registry.add(module.method.finish_stage())


def _registry(trainer: Trainer, pl_module: LightningModule, steps: int) -> NeuronRegistry:
    module = continual(pl_module)
    folder, own = RunFolder(trainer.default_root_dir).snapshot(steps), module.registry
    if (folder / "registry.json").exists():
        registry = NeuronRegistry.load(folder)
        registry.check_base([own.base_fingerprint])
        registry.move_base(own.source, write=trainer.is_global_zero)
        return registry
    return NeuronRegistry.create(
        folder, own.source, own.base_fingerprint, module.base_weights, own.unet_parameters, own.fused_by,
        own.rare_words,
    )  # fmt: skip


def check_snapshots(steps: list[int] | None, stage_steps: int) -> None:
    """Refuses snapshots that cannot be taken.

    Args:
        steps: that were asked for.
        stage_steps: optimizer steps of the shortest stage.

    Raises:
        UserError: naming every one that is not smaller than a stage.
    """
    problems = Problems()
    for each in (each for each in steps or () if each >= stage_steps):
        remedy = "Use smaller ones; what a finished stage learned is kept anyway"
        problems.add(
            "--snapshots.steps",
            f"has {each}, and a stage has {stage_steps} steps (data.steps, data.steps_per_picture, settings)",
            remedy,
        )
    problems.raise_if_any()
