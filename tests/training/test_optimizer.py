"""The optimizer of a stage."""

import pytest
import torch
from torch import nn

from cns_lightning.errors import UserError
from cns_lightning.methods.base import ParameterGroup
from cns_lightning.training.optimizer import stage_optimizer, stage_rates


def test_a_rate_that_a_method_ignores_is_refused() -> None:
    groups = [ParameterGroup("neurons", [nn.Parameter(torch.zeros(1))], 0.1, 0.01)]
    (made,) = stage_optimizer(groups, [("learning_rate", 0.1)]).param_groups
    assert (made["lr"], made["weight_decay"]) == (0.1, 0.01)
    with pytest.raises(UserError, match=r'token_learning_rate is 0\.2 .* Write self\.rate\("token_learning_rate"\)'):
        stage_optimizer(groups, [("learning_rate", 0.1), ("token_learning_rate", 0.2)])


@pytest.mark.parametrize(
    ("falls", "token", "neurons"),
    [(False, [1, 1, 0, 0, 0], [0, 0, 2, 2, 2]), (True, [1, 0.5, 0, 0, 0], [0, 0, 2, 4 / 3, 2 / 3])],
)
def test_a_group_learns_in_its_steps_alone(falls: bool, token: list[float], neurons: list[float]) -> None:
    groups = [
        ParameterGroup("token", [nn.Parameter(torch.zeros(1))], 1.0, last=2),
        ParameterGroup("neurons", [nn.Parameter(torch.zeros(1))], 2.0, first=2),
    ]
    optimizer = stage_optimizer(groups)
    schedule = stage_rates(optimizer, groups, 5, falls)
    assert schedule is not None
    seen = []
    for _ in range(5):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert seen == [pytest.approx(rates) for rates in zip(token, neurons, strict=True)]


def test_groups_that_always_learn_at_one_rate_need_no_schedule() -> None:
    groups = [ParameterGroup("token", [nn.Parameter(torch.zeros(1))], 1.0)]
    assert stage_rates(stage_optimizer(groups), groups, 5, falls=False) is None
