"""What a run hands its data module, once the base model is loaded."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cns_lightning.data.stage_latents import RunContext
from cns_lightning.sequences.templates import class_training_prompt
from cns_lightning.training.class_pictures import class_latents

if TYPE_CHECKING:
    from torch import Tensor

    from cns_lightning.module import ContinualPersonalization
    from cns_lightning.sequences.sequence import Concept


def run_context(module: ContinualPersonalization) -> RunContext:
    """Returns what stages are prepared with: encoder, timesteps, prompt rule, place in the sequence, ranks.

    Args:
        module: module of the run, with its base model.
    """
    trainer, base = module.trainer, module.base
    return RunContext(
        encode=base.encode,
        resolution=base.resolution,
        latent_scale=base.latent_scale,
        timesteps=base.noise_scheduler.config["num_train_timesteps"],
        names_class_word=module.method.names_class_word,
        class_latents=partial(_class_latents, module) if module.method.prior_weight else None,
        position=lambda: (module.stage, module.step),
        next_stage=lambda: trainer.current_epoch,
        rank=trainer.global_rank,
        ranks=trainer.world_size,
        accumulate=trainer.accumulate_grad_batches,
        is_pinned=trainer.strategy.root_device.type == "cuda",
    )


def _class_latents(module: ContinualPersonalization, concept: Concept) -> Tensor:
    prompt = class_training_prompt(concept, module.data.templates)
    return class_latents(
        module.trainer,
        concept.class_word,
        prompt,
        module.data.prior,
        ([module.registry.base_fingerprint, prompt], [module.base_dtype]),
        module.draw_as_pretrained,
        module.base.encode,
    )
