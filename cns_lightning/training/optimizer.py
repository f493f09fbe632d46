"""The optimizer of a stage, and how its learning rates fall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cns_lightning.methods.base import ParameterGroup

FULL_RATE = "full_rate"
"""Key of an optimizer's group: the learning rate with which a stage begins."""


def stage_optimizer(groups: Iterable[ParameterGroup]) -> torch.optim.AdamW:
    """Makes AdamW over the groups of a stage."""
    return torch.optim.AdamW(
        [
            {
                "params": group.parameters,
                "lr": group.learning_rate,
                "weight_decay": group.weight_decay,
                FULL_RATE: group.learning_rate,
            }
            for group in groups
        ]
    )


def let_rates_fall(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Sets every learning rate to a share of the one with which the stage began."""
    for group in optimizer.param_groups:
        group["lr"] = group[FULL_RATE] * share
