"""The optimizer of a stage."""

import pytest
import torch
from torch import nn

from cns_lightning.errors import UserError
from cns_lightning.methods.base import ParameterGroup
from cns_lightning.training.optimizer import stage_optimizer


def test_a_rate_that_a_method_ignores_is_refused() -> None:
    groups = [ParameterGroup("neurons", [nn.Parameter(torch.zeros(1))], 0.1, 0.01)]
    (made,) = stage_optimizer(groups, [("learning_rate", 0.1)]).param_groups
    assert (made["lr"], made["weight_decay"]) == (0.1, 0.01)
    with pytest.raises(UserError, match=r'token_learning_rate is 0\.2 .* Write self\.rate\("token_learning_rate"\)'):
        stage_optimizer(groups, [("learning_rate", 0.1), ("token_learning_rate", 0.2)])
