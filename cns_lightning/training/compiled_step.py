"""A training step whose UNet is compiled, captured as a CUDA graph, or both; its first gradients are checked."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from cns_lightning.errors import UserError
from cns_lightning.training.step import PlainStep, StepLosses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cns_lightning.diffusion.base_model import BaseModel
    from cns_lightning.diffusion.cross_attention import WeightOverrides
    from cns_lightning.methods.base import Method

TOLERANCE, COARSE_TOLERANCE = 0.01, 0.1
"""How far, relative to its length, a gradient may lie from that of the plain step: in single precision, and where
operations round to half precision."""
VARIANTS = 64
"""Compiled variants of a block at most. Torch's own 8 are just the shapes of Stable Diffusion's blocks times the two
phases of a stage, before and after the token stands still; another batch size would be one too many."""
HALF_SCALE = 2.0**14
"""Factor on the loss whose gradients are compared in half precision, where small ones would round to zero."""


class CompiledStep(PlainStep):
    """Runs the UNet as compiled blocks, as a captured graph, or as a captured graph of compiled blocks.

    A stage changes the contents of tensors, not their shapes: the UNet is handed all key and value weights, whatever
    the mask, so that nothing is compiled or captured anew when a stage starts.

    Args:
        base: base model.
        method: method of the run.
        overrides: weights that stand in for those of the model's projections.
        parameters: lists what the running stage trains.
        backend: what compiles, or torch's name for it; None compiles nothing.
        captures: whether the UNet's way forward and back is captured.
        keeps_gradients: whether gradients of several batches add up to a step's.
        most: returns the largest of a number over all ranks; None where there is one.
    """

    def __init__(
        self,
        base: BaseModel,
        method: Method,
        overrides: WeightOverrides,
        parameters: Callable[[], list[nn.Parameter]],
        backend: str | Callable[..., Any] | None = "inductor",
        captures: bool = False,
        keeps_gradients: bool = False,
        most: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(base, method, overrides)
        self.parameters, self.most = parameters, most
        self.checked: set[tuple[bool, ...]] = set()
        self.blocks = CompiledBlocks(base.unet, backend) if backend else None
        if captures:
            # Two: a graph that is replayed again before its way back loses what that needs.
            self.unet = CapturedUNet(base.unet, overrides, keeps_gradients)
            self.prior_unet = CapturedUNet(base.unet, overrides, keeps_gradients)

    def __call__(self, batch: dict[str, Any]) -> StepLosses:
        """Returns the losses of a batch of the data module.

        Raises:
            UserError: if the first gradient is not that of the plain step; so is the first once the token stands still,
                which runs other code.
        """
        if torch.is_grad_enabled():
            learning = tuple(each.requires_grad for each in self.parameters())
            if learning not in self.checked and self._is_checked(batch):
                self.checked.add(learning)
        return super().__call__(batch)

    def _is_checked(self, batch: dict[str, Any]) -> bool:
        """Compares a gradient with that of the plain step: compilers have made wrong ones without a word.

        Returns:
            Whether it could be compared: the plain one was finite on some rank.
        """
        with self._plain():
            expected = self._gradient(batch)
        distance = (self._gradient(batch) - expected).norm() / expected.norm().clamp_min(1e-30)
        # One that is not finite either way is not the compiler's fault; `FiniteLoss` names the picture.
        distance = torch.where(expected.isfinite().all(), distance.nan_to_num(torch.inf, torch.inf), -1.0)
        found = (distance if self.most is None else self.most(distance)).item()
        if found > (TOLERANCE if self._precision() == torch.float32 else COARSE_TOLERANCE):
            key = "training.compile" if self.blocks else "training.cuda_graph"
            problem = f"gives a gradient {found:.1%} off that of the plain step, with torch {torch.__version__}"
            raise UserError(key, problem, "Set it to false, or take another version of torch")
        return found >= 0

    @contextmanager
    def _plain(self) -> Iterator[None]:
        """Lets the plain UNet compute meanwhile."""
        captured, self.unet, self.prior_unet = (self.unet, self.prior_unet), self.base.unet, self.base.unet
        try:
            with self.blocks.switched_off() if self.blocks else nullcontext():
                yield
        finally:
            self.unet, self.prior_unet = captured

    def _precision(self) -> torch.dtype:
        kind = self.base.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.base.dtype

    def _gradient(self, batch: dict[str, Any]) -> Tensor:
        moved = [each for each in self.parameters() if each.requires_grad]
        scale = HALF_SCALE if self._precision() == torch.float16 else 1.0
        found = torch.autograd.grad(scale * super().__call__(batch).total(), moved, materialize_grads=True)
        return torch.cat([each.float().flatten() for each in found])


class CompiledBlocks:
    """Compiles the blocks of a UNet that repeat, for training; pictures are drawn by the plain ones.

    Regional compilation, as diffusers names the blocks for it: blocks of one shape share what is compiled, so that a
    start takes seconds and not minutes.

    Args:
        unet: UNet.
        backend: what compiles, or torch's name for it.
    """

    def __init__(self, unet: nn.Module, backend: str | Callable[..., Any]) -> None:
        names = getattr(unet, "_repeated_blocks", None) or ()
        self.is_on = True
        torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
        for block in unet.modules():
            if type(block).__name__ in names:
                compiled = torch.compile(block.forward, backend=backend, dynamic=False)
                vars(block)["forward"] = partial(self._forward, block.forward, compiled)

    def _forward(self, plain: Callable[..., Any], compiled: Callable[..., Any], *given: Any, **named: Any) -> Any:
        # Not by where it is called: with gradient checkpointing a block runs once more on the way back.
        return (compiled if self.is_on and torch.is_grad_enabled() else plain)(*given, **named)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Lets the plain blocks train meanwhile."""
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True


class CapturedUNet:
    """Calls a UNet for training as CUDA graphs, one for its way forward and one for its way back, per set of shapes.

    Thousands of small kernels are then launched at once. What differs from step to step is copied into the tensors of
    the graph: noisy latents, timesteps, text states, and the weights that stand in for the UNet's own. The frozen
    weights are read where they lie; a stage's end writes them in place.

    Args:
        unet: UNet.
        overrides: weights that stand in for those of its projections.
        keeps_gradients: whether gradients must outlast the next call: those of a graph are written anew by it.
    """

    def __init__(self, unet: nn.Module, overrides: WeightOverrides, keeps_gradients: bool = False) -> None:
        self.plain, self.overrides, self.keeps_gradients = unet, overrides, keeps_gradients
        self.graphs: dict[Any, Callable[..., Tensor]] = {}
        self.pool: Any = None

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Returns what the UNet predicts, in a tuple; the tensor is written anew by the next call."""
        added, weights = dict(added_cond_kwargs or {}), self.overrides.tensors
        if not torch.is_grad_enabled():
            return self.plain(sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)
        # Rounded before they are handed over: half as many bytes are copied, and it is the same cast.
        rounded = [each.to(self.overrides.projections[name].weight.dtype) for name, each in weights.items()]
        tensors = (sample, timestep, encoder_hidden_states, *added.values(), *rounded)
        if self.keeps_gradients:
            tensors = tuple(_with_own_gradient(each) if each.requires_grad else each for each in tensors)
        shapes = tuple((each.shape, each.dtype, each.requires_grad) for each in tensors)
        key = (tuple(added), tuple(weights), shapes)
        if key not in self.graphs:
            self.graphs[key] = self._captured(tuple(added), tuple(weights), tensors)
        return (self.graphs[key](*tensors),)

    def _captured(
        self, added: tuple[str, ...], weights: tuple[str, ...], tensors: tuple[Tensor, ...]
    ) -> Callable[..., Tensor]:
        kind = tensors[0].device.type
        precision, is_on = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

        def predict(sample: Tensor, timestep: Tensor, states: Tensor, *rest: Tensor) -> Tensor:
            self.overrides.set(dict(zip(weights, rest[len(added) :], strict=True)))
            conditions = dict(zip(added, rest, strict=False))
            # Autocast must not keep casts of one capture for another, and has no say in the way back.
            with torch.autocast(kind, precision, enabled=is_on, cache_enabled=False):
                return self.plain(
                    sample, timestep, encoder_hidden_states=states, added_cond_kwargs=conditions, return_dict=False
                )[0]

        before = self.overrides.tensors
        static = tuple(each.detach().clone().requires_grad_(each.requires_grad) for each in tensors)
        # Graphs share memory: none is replayed between the way forward and the way back of another.
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        try:
            with torch.autocast(kind, enabled=False):
                captured = torch.cuda.make_graphed_callables(predict, static, allow_unused_input=True, pool=self.pool)
                return cast("Callable[..., Tensor]", captured)
        finally:
            self.overrides.set(before)


def _with_own_gradient(tensor: Tensor) -> Tensor:
    """Returns a tensor whose gradient is a copy, for what is trained to keep."""
    view = tensor.view_as(tensor)
    view.register_hook(torch.clone)
    return view
