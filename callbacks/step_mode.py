"""Which way a training step runs: as it is, compiled, or captured as a CUDA graph."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lightning.pytorch import Callback

from cns_lightning.errors import Problems
from cns_lightning.module import continual
from cns_lightning.training.compiled_step import CompiledStep

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

BACKEND = "inductor"
"""Torch's name for what compiles."""


class StepMode(Callback):
    """Makes training steps faster on a GPU, once it is known that they compute what the plain ones do.

    The first gradient is compared with that of the plain step, and a run in which it is another stops; so is the first
    once the token stands still. The modes round in different ways: a run is continued in its own. Acts in ``setup`` and
    ``on_fit_start``. Keeps no state.

    Args:
        compile: whether the UNet's repeated blocks are compiled for training, which makes the first steps take longer.
        cuda_graph: whether the UNet's way forward and back is captured as CUDA graphs: worth most where pictures are
            few and small, so that the GPU waits for its next kernel. Not with gradient checkpointing.
    """

    def __init__(self, compile: bool = False, cuda_graph: bool = False) -> None:
        self.compile, self.cuda_graph = compile, cuda_graph

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses, before a model is loaded, what cannot be captured.

        Raises:
            UserError: naming the key.
        """
        problems, device = Problems(), trainer.strategy.root_device
        if self.cuda_graph and device.type != "cuda":
            problem = f"needs an NVIDIA GPU, and this run computes on {device.type}"
            problems.add("training.cuda_graph", problem, "Set it to false, or trainer.accelerator to gpu")
        if self.cuda_graph and continual(pl_module).gradient_checkpointing:
            problem = "cannot capture a UNet that computes its blocks again on the way back"
            problems.add("training.cuda_graph", problem, "Set it or model.gradient_checkpointing to false")
        problems.raise_if_any()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts the faster step in the plain one's place."""
        if self.compile or self.cuda_graph:
            module = continual(pl_module)
            module.forward_step = CompiledStep(
                module.base,
                module.method,
                module.overrides,
                module.trained_parameters,
                BACKEND if self.compile else None,
                self.cuda_graph,
                trainer.accumulate_grad_batches > 1,
                partial(trainer.strategy.reduce, reduce_op="max") if trainer.world_size > 1 else None,
            )
