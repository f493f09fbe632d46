"""The optimizer of a stage, and how its learning rates fall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cns_lightning.methods.base import ParameterGroup


def stage_optimizer(groups: Iterable[ParameterGroup]) -> AdamW:
    """Makes AdamW over the groups of a stage."""
    return AdamW(
        [
            {"params": group.parameters, "lr": group.learning_rate, "weight_decay": group.weight_decay}
            for group in groups
        ]
    )


def falling_rates(optimizer: AdamW, steps: int) -> LambdaLR:
    """Lets every learning rate fall in a straight line, to 0 after the stage's last step.

    Args:
        optimizer: optimizer of the stage.
        steps: optimizer steps of the stage.
    """
    return LambdaLR(optimizer, lambda step: 1 - step / steps)
