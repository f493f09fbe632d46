"""Several processes: every one trains the same small vectors, and one flat buffer is exchanged a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from lightning.pytorch.strategies import DDPStrategy

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from cns_lightning.module import ContinualPersonalization


class StagedDDP(DDPStrategy):
    """Lightning's DDP without torch's wrapper around the module.

    The wrapper notes at the start which parameters it exchanges. Here every stage brings its own: torch's would go on
    exchanging those of the first stage, and the ranks would drift apart without a word. It also sorts its buffers anew
    after the first step, so that a continued stage would add up in another order. One flat buffer in the optimizer's
    order has neither fault.
    """

    def configure_ddp(self) -> None:
        """Wraps nothing: every rank has loaded the same model and makes the same vectors."""

    def post_backward(self, closure_loss: Tensor) -> None:
        """Averages the gradients and adds up the notices over ranks, once a step.

        In this hook and not before the optimizer's step: half precision looks for infinite gradients in between, and
        must find the same ones on every rank.
        """
        module = cast("ContinualPersonalization", self.lightning_module)
        if self.world_size < 2 or not module.is_step_end:
            return
        parameters = [each for each in module.trained_parameters() if each.requires_grad]
        notices = module.notices.vector
        parts = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        flat = torch.cat([*(part.reshape(-1).float() for part in parts), notices])
        torch.distributed.all_reduce(flat)
        sizes = [each.numel() for each in parameters]
        *sums, noticed = flat.split([*sizes, len(notices)])
        notices.copy_(noticed)
        for parameter, total in zip(parameters, sums, strict=True):
            parameter.grad = (total / self.world_size).view_as(parameter).to(parameter.dtype)

    def check_agreement(self, facts: Mapping[str, str]) -> None:
        """Stops the run on every rank where the ranks do not see the same; every rank must ask.

        Args:
            facts: what this rank sees, by name.

        Raises:
            UserError: naming the first fact on which a rank differs from rank 0.
        """
        seen: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(seen, dict(facts))
        for rank, others in enumerate(seen):
            for what in facts:
                if others[what] != seen[0][what]:
                    raise UserError(
                        f"rank {rank}",
                        f"sees another {what} than rank 0 ({others[what]}, {seen[0][what]})",
                        "Make sure that every node reads the same files and has the same versions installed",
                    )
