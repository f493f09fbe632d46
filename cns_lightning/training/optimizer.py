"""The optimizer of a stage, and how its learning rates fall."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from cns_lightning.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lightning.pytorch import Trainer

    from cns_lightning.methods.base import ParameterGroup


def may_fuse(trainer: Trainer) -> bool:
    """Returns whether AdamW may be one kernel a group.

    On a GPU, unless a loss scale looks for infinite gradients before it, or gradients are clipped, which Lightning
    refuses for every optimizer that could undo a loss scale by itself.
    """
    is_scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    return trainer.strategy.root_device.type == "cuda" and not is_scaled and not trainer.gradient_clip_val


def stage_optimizer(
    groups: list[ParameterGroup], own: Iterable[tuple[str, float]] = (), is_fused: bool = False
) -> AdamW:
    """Makes AdamW over the groups of a stage.

    Args:
        groups: those of the method.
        own: learning rates of the concept by the name of the method's argument, which the groups must have taken.
        is_fused: whether a step is one kernel a group.

    Raises:
        UserError: if a method has not taken one of them; it would be ignored without a word.
    """
    for name, rate in own:
        if all(group.learning_rate != rate for group in groups):
            problem = f"{name} is {rate:g} for this concept, and the method has not taken it"
            remedy = f'Write self.rate("{name}") in its parameter_groups, or take it out of the concept\'s settings'
            raise UserError("model.method", problem, remedy)
    return AdamW(
        [
            {"params": group.parameters, "lr": group.learning_rate, "weight_decay": group.weight_decay}
            for group in groups
        ],
        fused=is_fused or None,  # False would also rule out torch's kernels over several tensors
    )


def resume_rates(checkpoint: dict[str, Any], step: int, steps: int) -> None:
    """Enters in a checkpoint without a schedule, of an earlier version, where the falling rates stand.

    Args:
        checkpoint: checkpoint of a running stage.
        step: optimizer steps taken in it.
        steps: optimizer steps of the stage.
    """
    if checkpoint["lr_schedulers"]:
        return
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    for group in groups:
        group["lr"] = group.pop("full_rate") * (1 - step / steps)
    checkpoint["lr_schedulers"] = [
        {"last_epoch": step, "_step_count": step + 1, "lr_lambdas": [None] * len(groups)},
    ]


def end_learning(groups: list[ParameterGroup], step: int) -> None:
    """Takes the groups that have learned all they will out of the way back: no gradient is computed for them.

    Those that are yet to learn keep theirs, at a rate of 0: moments of AdamW that start from nothing would move every
    entry by the whole rate at first, however small its gradient (on the demo, pictures came out less like the photos).

    Args:
        groups: those of the method.
        step: optimizer step of the stage, from 0.
    """
    for group in groups:
        for parameter in group.parameters:
            parameter.requires_grad_(group.last is None or step < group.last)


def stage_rates(optimizer: AdamW, groups: list[ParameterGroup], steps: int, falls: bool) -> LambdaLR | None:
    """Makes the schedule of the learning rates of a stage; None where they stay what they are.

    Args:
        optimizer: optimizer of the stage, over the groups.
        groups: those of the method; outside the steps in which a group learns its rate is 0.
        steps: optimizer steps of the stage.
        falls: whether rates fall in a straight line, to 0 after the last step in which a group learns.
    """
    if not falls and all(group.first == 0 and group.last is None for group in groups):
        return None
    return LambdaLR(optimizer, [partial(_share_of_rate, group, steps, falls) for group in groups])


def _share_of_rate(group: ParameterGroup, steps: int, falls: bool, step: int) -> float:
    first, last = group.first, steps if group.last is None else group.last
    if not first <= step < last:
        return 0.0
    return 1 - (step - first) / (last - first) if falls else 1.0
