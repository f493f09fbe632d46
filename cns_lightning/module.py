"""The LightningModule: wraps the UNet, holds the registry of concepts, and runs one training step for every method.

An epoch of the trainer is a stage of the sequence. What a stage trains is made when it starts, and made anew from
registry and checkpoint when it was stopped: nothing depends on how often the process was started.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from cns_lightning.diffusion.base_model import BaseModel
from cns_lightning.diffusion.cross_attention import WeightOverrides
from cns_lightning.diffusion.layerwise import LayerwiseText
from cns_lightning.diffusion.projections import read_weights
from cns_lightning.diffusion.sampling import generate_pairs
from cns_lightning.diffusion.text import ConceptTokens
from cns_lightning.errors import UserError
from cns_lightning.methods.base import Method, StageContext
from cns_lightning.methods.token_starts import rare_words_of, token_starts
from cns_lightning.neurons.mask import NeuronMask
from cns_lightning.registry.fused import weights_after
from cns_lightning.runs.folder import RunFolder
from cns_lightning.sequences.templates import scoring_prompts
from cns_lightning.storage import fingerprint
from cns_lightning.training.opening import lay_out, open_registry, source_of
from cns_lightning.training.optimizer import end_learning, may_fuse, resume_rates, stage_optimizer, stage_rates
from cns_lightning.training.position import Position
from cns_lightning.training.run_context import run_context
from cns_lightning.training.step import PlainStep
from cns_lightning.training.step_notices import LOSS, PENALTY, Notice, StepNotices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from PIL import Image

    from cns_lightning.data.module import ConceptDataModule
    from cns_lightning.registry.record import ConceptRecord
    from cns_lightning.sequences.sequence import Concept, Sequence


class ContinualPersonalization(LightningModule):
    """Teaches one base model a sequence of concepts with one method.

    Attributes:
        stage: the stage that was started last, -1 before the first.
        step: optimizer steps applied in that stage.
        done_stages: finished stages; their concepts are in ``registry`` and folded into the UNet.
        registry: the kept concepts; on disk in the run folder.
        base_weights: pretrained weights of the method's projections by parameter name, float32, on the CPU.
        weights: the same weights after the last finished stage.
        concept_neurons: the mask of the running stage's concept by token, once it is selected.
        armed: the mask that the next stage trains, once `MaskFreezing` has armed it.
        notices, recent_notices: what the running step tells the host; what has come of it since the step before.
        recent_loss: mean loss of the newest row of metrics, once there is one.

    Args:
        method: method of the run.
        base_model: ``miniature``, a diffusers folder, a single-file checkpoint or a hub id.
        revision: branch, tag or commit of a hub's repository.
        base_loras: strength of every LoRA file that is folded into the base model before anything else, by its path.
        seed: base random seed.
        base_dtype: precision in which the frozen base model is loaded.
        gradient_checkpointing: trades time for memory in the UNet.
        channels_last: lays the UNet out as a GPU's convolutions in half precision read it fastest; rounds otherwise.
        rare_words: words from which tokens start, best first, for methods that start them so; ``auto`` ranks those of
            the base model's vocabulary when a run begins.
    """

    def __init__(
        self,
        method: Method,
        base_model: str = "miniature",
        seed: int = 0,
        base_dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        gradient_checkpointing: bool = False,
        rare_words: list[str] | str = "auto",
        revision: str | None = None,
        base_loras: dict[str, float] | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.method, self.base_model, self.seed, self.rare_words = method, base_model, seed, rare_words
        self.base_dtype, self.gradient_checkpointing = base_dtype, gradient_checkpointing
        self.revision, self.base_loras, self.channels_last = revision, base_loras, channels_last
        self.stage, self.step, self.done_stages = -1, 0, 0
        self.concept_neurons: dict[str, NeuronMask] = {}
        self.armed: NeuronMask | None = None
        self.calibration_prompts: tuple[str, ...] = ()
        self.recent_notices: list[Notice] = []
        self.recent_loss: float | None = None
        self.placeholder = nn.Parameter(torch.zeros(1))
        self._base: BaseModel | None = None

    # ---- the base model and what has been learned -------------------------------------------------------------------

    @property
    def base(self) -> BaseModel:
        """The base model; RuntimeError before `configure_model` has loaded it."""
        if self._base is None:
            raise RuntimeError("the base model is not loaded yet")
        return self._base

    @property
    def sequence(self) -> Sequence:
        """Returns the sequence that the data module read."""
        return self.data.sequence

    @property
    def data(self) -> ConceptDataModule:
        """Returns the data module."""
        return cast("ConceptDataModule", self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def concept(self) -> Concept:
        """Returns the concept of the stage that was started last."""
        return self.sequence.concepts[self.stage]

    def configure_model(self) -> None:
        """Loads the base model and opens the registry; does nothing when called again.

        Raises:
            UserError: if the module has been trained by another trainer before.
        """
        if self._base is not None and self._trainer_of_base is not self.trainer:
            remedy = "Make module, data module and trainer anew; a run goes on from its folder"
            raise UserError("ContinualPersonalization", "has been trained by another trainer", remedy)
        if self._base is None:
            # Lightning makes the GPU the default device here; what is drawn is drawn on the CPU, and moves afterwards.
            with torch.device("cpu"):
                self._load()

    def _load(self) -> None:
        run, writes = RunFolder(self.trainer.default_root_dir), self.trainer.is_global_zero
        base = BaseModel.load(source_of(run, self.base_model, self.revision, self.base_loras))
        self._base, self.unet, self.vae, self._trainer_of_base = base, base.unet, base.vae, self.trainer
        self.text_encoders = nn.ModuleList(base.text_encoders)
        self.projections = self.method.projections(base)
        self.base_weights = read_weights(self.projections)
        device = self.trainer.strategy.root_device
        words = partial(rare_words_of, self.method, base, self.rare_words, device)
        self.registry = open_registry(run, self.method, base, self.base_weights, words, writes)
        self.data.check_against(base, len(self.registry.tokens))
        # Only now: weights and rare words come from single precision whatever the run computes in.
        lay_out(base, getattr(torch, self.base_dtype), self.channels_last, self.gradient_checkpointing)
        self.weights = dict(self.base_weights)
        self.layerwise = LayerwiseText.of(base) if self.method.is_layerwise else None
        self.tokens = ConceptTokens(base, self.layerwise.layers if self.layerwise is not None else 1)
        self.overrides = WeightOverrides(self.projections, detach_first_token=self.method.detaches_first_token)
        self.forward_step = PlainStep(base, self.method, self.overrides)
        self._introduce_tokens()
        self.data.connect(run_context(self))

    def _introduce_tokens(self) -> None:
        """Adds all tokens of the sequence at once: one that cannot be used stops the run here, not after hours."""
        self.starts = token_starts(self.method, self.base, self.sequence.concepts, self.registry, self.seed)
        self.tokens.add_all(self.starts.embeddings)
        if self.layerwise is not None:
            for token in self.tokens.names:
                self.layerwise.add(self.tokens.rows(token))

    def fold(self, stage: int) -> None:
        """Writes the registry's record of a finished stage into the model, rounded as it is stored."""
        record = self.registry.records[stage]
        self.tokens.set(record.token, record.embeddings)
        folder, writes = RunFolder(self.trainer.default_root_dir), self.trainer.is_global_zero
        self.weights = weights_after(
            stage + 1, folder, self.registry, self.method, self.base, self.base_weights, writes
        )
        with torch.no_grad():
            for name, projection in self.projections.items():
                projection.weight.copy_(self.weights[name])

    # ---- stages -----------------------------------------------------------------------------------------------------

    @property
    def is_step_end(self) -> bool:
        """Returns whether the batch just trained completed an optimizer step: no gradients are half accumulated."""
        return not self.trainer.fit_loop._should_accumulate()

    @property
    def is_stage_end(self) -> bool:
        """Returns whether the batch just trained was the stage's last."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch

    def arm(self, mask: NeuronMask) -> None:
        """Lets the stage that is about to start train the neurons of a mask, and no others."""
        self.armed = mask

    def begin_stage(self, stage: int) -> None:
        """Makes what a stage trains, from the registry and the concept; the optimizer comes anew."""
        # A registry may be ahead of a lost or older checkpoint.
        self.registry.truncate(self.done_stages)
        self._create_stage(stage)
        self.step = 0
        self.trainer.strategy.setup_optimizers(self.trainer)

    def _create_stage(self, stage: int) -> None:
        concept = self.sequence.concepts[stage]
        mask, self.armed = self.armed, None
        # Those of earlier stages are in the registry.
        self.concept_neurons = {} if mask is None else {concept.token: mask}
        if self.method.needs_neurons and mask is None:
            raise UserError(
                "trainer.callbacks",
                f"{type(self.method).__name__} trains selected neurons; no callback selects and arms them",
                "Add cns_lightning.callbacks.importance_scoring.ImportanceScoring and .mask_freezing.MaskFreezing",
            )
        self.stage = stage
        self.method.start_stage(
            StageContext(
                stage=stage,
                concept=concept,
                base=self.base,
                tokens=self.tokens,
                registry=self.registry,
                base_weights=self.base_weights,
                weights=self.base_weights if self.method.fuses else self.weights,
                mask=mask,
                prompts=tuple(
                    tuple(scoring_prompts(each, self.data.templates, self.method.names_class_word))
                    for each in self.sequence.concepts[: stage + 1]
                ),
                calibration_prompts=self.calibration_prompts,
                seed=self.seed,
                steps=self.data.steps_of(stage),
                rare_words=self.starts.rare_words.get(concept.token, ()),
            )
        )

    def finish_stage(self, choose: Callable[[ConceptRecord], ConceptRecord] = lambda last: last) -> None:
        """Keeps what the running stage learned, or what is chosen, and folds it into the model; for `StageEnd`."""
        self.data.check_whole(self.stage, self.step)
        record = self.method.finish_stage()
        self.overrides.clear()
        self.tokens.fold(record.token)
        record = choose(record)
        self.registry.add(record, write=self.trainer.is_global_zero)
        self.fold(self.stage)
        self.done_stages = self.stage + 1

    # ---- hooks ------------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Makes the vector of notices, now that the device and the number of ranks are known."""
        ranks, accumulate = self.trainer.world_size, self.trainer.accumulate_grad_batches
        self.notices = StepNotices(self.data.batch_size * ranks * accumulate, ranks, self.device)
        self.check_ranks()
        if self.stage >= self.done_stages:  # a stage that is continued
            self.data.prepare(self.stage)

    def on_train_epoch_start(self) -> None:
        """Starts the stage, after every callback had its turn; not called when a stage is continued."""
        self.begin_stage(self.trainer.current_epoch)
        self.check_ranks()
        self.data.prepare(self.stage)

    def check_ranks(self) -> None:
        """Makes sure that all ranks stand at one place of one sequence: else they would add up what differs.

        Raises:
            UserError: naming what a rank sees otherwise.
        """
        if self.trainer.world_size > 1:
            strategy: Any = self.trainer.strategy
            strategy.check_agreement(self._place())

    def _place(self) -> dict[str, str]:
        """Returns what must be the same on every rank."""
        is_running = self.stage >= self.done_stages
        mask = self.concept_neurons.get(self.concept.token) if is_running else None
        return {
            "base model": self.registry.base_fingerprint,
            "rare words": " ".join(self.registry.rare_words),
            "place in the sequence": f"concept {self.stage + 1}, step {self.step}",
            "registry": ", ".join(entry.sha256[:12] for entry in self.registry.entries),
            "set of pictures": self.data.picture_checksum(self.stage) if is_running else "",
            "neurons": "" if mask is None else fingerprint(mask.to_tensors()),
        }

    def configure_optimizers(self) -> Any:
        """Makes AdamW over the running stage's groups, and its schedule; before the first stage over a placeholder."""
        if self.stage < 0 or self.done_stages > self.stage:
            return torch.optim.AdamW([self.placeholder], lr=0.0)
        self.groups = self.method.parameter_groups()
        optimizer = stage_optimizer(self.groups, self.concept.settings.rates, may_fuse(self.trainer))
        rates = stage_rates(optimizer, self.groups, self.data.steps_of(self.stage), self.method.learning_rate_falls)
        if rates is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Returns the denoising loss of a batch plus the method's penalty, a scalar."""
        accumulate = self.trainer.accumulate_grad_batches
        if (self.trainer.current_epoch, batch_idx // accumulate) != (self.stage, self.step):
            raise RuntimeError("the loader is out of step with the weights")  # it would train on, silently wrong
        if (part := batch_idx % accumulate) == 0:
            self.notices.begin()
            end_learning(self.groups, self.step)
        found = self.forward_step(batch)
        first = (part * self.trainer.world_size + self.trainer.global_rank) * self.data.batch_size
        self.notices.note_losses(found.losses, found.penalty, first, 1 / accumulate)
        return found.total()

    @torch.no_grad()
    def draw_as_pretrained(self, pairs: list[tuple[str, int]], steps: int, guidance: float) -> list[Image.Image]:
        """Draws pictures for prompts and seeds with the pretrained weights, whatever has been learned."""
        trained = self.overrides.tensors
        self.overrides.set({name: weight.to(self.device) for name, weight in self.base_weights.items()})
        try:
            return generate_pairs(self.base.pipeline(), pairs, steps, guidance)
        finally:
            self.overrides.set(trained)

    @torch.no_grad()
    def draw_as_trained(self, pairs: list[tuple[str, int]], steps: int, guidance: float) -> list[Image.Image]:
        """Draws pictures for prompts and seeds with what the running stage has learned so far."""
        self.overrides.set(self.method.trained_weights())
        return generate_pairs(self.base.pipeline(), pairs, steps, guidance)

    def trained_parameters(self) -> list[nn.Parameter]:
        """Lists what the optimizer moves, in an order that is the same on every rank."""
        return [each for group in self.trainer.optimizers[0].param_groups for each in group["params"]]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Empties the gradients of a step that is not finite, so that what is saved can be used; waits for nothing."""
        gradients = [each.grad for each in self.trained_parameters() if each.grad is not None]
        if not gradients:
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        unfit = self.notices.note_gradients(gradients, scaler is not None)
        for gradient in gradients:
            gradient.masked_fill_(unfit, 0.0)

    def optimizer_step(self, *arguments: Any, **keywords: Any) -> None:
        """Steps, lets the method act while the gradients stand, and counts the step."""
        super().optimizer_step(*arguments, **keywords)
        self.method.after_step(self.step)
        self.notices.publish(self.step)
        self.step += 1
        # On a stage's last batch nothing may stay behind: the stage is about to be finished.
        self.recent_notices = self.notices.read(wait=self.step == self.data.steps_of(self.stage))

    def on_train_batch_end(self, *_: Any) -> None:
        """Hands the step's loss, the mean over ranks, to the loggers."""
        if not self.is_step_end:
            return
        self.log("loss", self.notices.mean(LOSS), batch_size=self.data.batch_size)
        if self.notices.has_penalty:
            self.log("penalty", self.notices.mean(PENALTY), batch_size=self.data.batch_size)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen model out and notes where in the sequence the run stands."""
        pictures, mask = "", None
        if self.stage >= self.done_stages:
            pictures, mask = self.data.picture_checksum(self.stage), self.concept_neurons.get(self.concept.token)
        Position(self.stage, self.step, self.done_stages, pictures, mask).write(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Makes the finished concepts and the running stage anew, before weights and optimizer are loaded."""
        position = Position.read(checkpoint)
        # Lightning moves the model after this; what a stage works out at its start must be worked out where it was.
        self.to(self.trainer.strategy.root_device)
        self.registry.truncate(position.done_stages)
        for token in self.registry.tokens:
            self.tokens.set(token, [self.registry.embedding(token, each) for each in range(len(self.base.tokenizers))])
        if position.done_stages:
            self.fold(position.done_stages - 1)
        self.done_stages, self.stage, self.step = position.done_stages, position.stage, position.step
        if position.is_within_stage:
            self.data.check_pictures_of(self.stage, position.pictures, self.step)
            self.armed = position.mask
            self._create_stage(self.stage)
            if self.method.learning_rate_falls:
                resume_rates(checkpoint, self.step, self.data.steps_of(self.stage))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads the running stage's state; the names must match exactly, whatever ``strict`` says."""
        own = {name.removeprefix("method."): value for name, value in state_dict.items()}
        if self.stage < self.done_stages:
            return self.method.load_state_dict({}, strict=False)
        return self.method.load_state_dict(own, strict=True)


def continual(module: LightningModule) -> ContinualPersonalization:
    """Returns the module that a callback was handed, by its own type.

    Raises:
        TypeError: if it is another.
    """
    if not isinstance(module, ContinualPersonalization):
        raise TypeError(f"this callback works for ContinualPersonalization, not for {type(module).__name__}")
    return module
