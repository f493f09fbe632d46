"""Freezes all but the concept neurons and the concept's token, and proves at the stage's end that it held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch import Callback

from cns_lightning.errors import UserError
from cns_lightning.module import continual

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor

    from cns_lightning.module import ContinualPersonalization


class MaskFreezing(Callback):
    """Arms every stage with the mask of its concept, and stops the run if anything outside it moved, bit for bit.

    Acts in ``on_train_epoch_start`` (arms the stage, notes checksums), on a continued stage, which its checkpoint has
    armed, in ``on_train_start`` (notes checksums), and in ``on_train_epoch_end`` (compares), on every rank. Writes
    nothing.
    Compared are every key and value weight outside the stage's mask, every other weight of the UNet, the autoencoder,
    the text encoders, and the embedding rows of all other tokens.
    """

    def __init__(self) -> None:
        self.checksums: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes where a continued stage stands; its weights are those after the previous stage, and its delta apart."""
        module = continual(pl_module)
        if module.stage >= module.done_stages:
            self._note(module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the stage train the concept's neurons alone, and notes where the model stands before it.

        Raises:
            UserError: if no callback before this one has selected the neurons.
        """
        module = continual(pl_module)
        token = module.sequence.concepts[trainer.current_epoch].token
        if token not in module.concept_neurons:
            raise UserError(
                "trainer.callbacks",
                "MaskFreezing has no neurons to leave free, no callback before it selects them",
                "Add class_path: cns_lightning.callbacks.importance_scoring.ImportanceScoring before it",
            )
        module.arm(module.concept_neurons[token])
        self._note(module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares after the stage is finished and folded.

        Raises:
            RuntimeError: if a weight outside the mask moved; never the user's fault.
        """
        module = continual(pl_module)
        mask = module.concept_neurons[module.concept.token].bools()
        moved = [
            name for name, weight in module.weights.items() if _moved_outside(weight, self.weights[name], mask[name])
        ]
        moved += [
            name for name, value in frozen_checksums(module).items() if not torch.equal(value, self.checksums[name])
        ]
        if moved:
            raise RuntimeError(f"stage {module.stage} moved what it must not: {', '.join(moved[:10])}")

    def _note(self, module: ContinualPersonalization) -> None:
        self.weights = dict(module.weights)
        self.checksums = frozen_checksums(module)


def _moved_outside(now: Tensor, then: Tensor, mask: Tensor) -> bool:
    # Compared as bits: a changed sign of zero or a changed nan is a change.
    return bool(((now.view(torch.int32) != then.view(torch.int32)) & ~mask).any())


def frozen_checksums(module: ContinualPersonalization) -> dict[str, Tensor]:
    """Returns one checksum for every tensor a stage must leave alone; for embedding tables, one over the other rows."""
    token = module.sequence.concepts[max(module.stage, module.trainer.current_epoch)].token
    sums = {f"vae.{name}": torch.hash_tensor(value) for name, value in module.vae.named_parameters()}
    for name, value in module.unet.named_parameters():
        if name not in module.projections:
            sums[f"unet.{name}"] = torch.hash_tensor(value)
    for number, encoder in enumerate(module.text_encoders):
        table = cast("Any", encoder).get_input_embeddings().weight
        own = module.tokens.row(token, number)
        for name, value in encoder.named_parameters():
            if value is table:
                value = torch.cat([value[:own], value[own + 1 :]])
            sums[f"text_encoders.{number}.{name}"] = torch.hash_tensor(value)
    return sums
