from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from fpn.errors import ModelFileError
from fpn.training.optimizer_state import capture_optimizer, restore_optimizer


class Counting(torch.optim.Optimizer):
    """Counts its steps in its group, and with each weight; moves nothing."""

    def __init__(self, groups):
        super().__init__(groups, {"lr": 0.1, "counted": 0})

    def step(self, closure=None):
        for group in self.param_groups:
            group["counted"] += 1
            for weight in group["params"]:
                self.state[weight]["times"] = self.state[weight].get("times", 0) + 1


def counting(name: str = "weight") -> Counting:
    weight = nn.Parameter(torch.zeros(2))
    return Counting([{"params": [weight], "names": [name], "multiplier": 1.0}])


def test_plain_values_of_weights_and_groups_come_back_through_json():
    optimizer = counting()
    for _ in range(3):
        optimizer.step()
    tensors, rest = capture_optimizer(optimizer, from_outside=True)
    assert tensors == {}
    assert rest["values"] == {"weight": {"times": 3}}
    fresh = counting()
    restore_optimizer(fresh, tensors, json.loads(json.dumps(rest)))
    fresh.step()
    assert (fresh.param_groups[0]["counted"], *fresh.state.values()) == (4, {"times": 4})


def test_group_values_of_a_built_in_optimizer_are_the_configurations():
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(1))], "names": ["w"], "multiplier": 1.0}], lr=0.1)
    _, rest = capture_optimizer(optimizer, from_outside=False)
    assert rest == {"class": "torch.optim.sgd.SGD", "values": {}, "groups": None}


def test_a_state_keeps_its_own_type_of_number_and_its_shape():
    def made(value):
        optimizer = counting()
        optimizer.state[optimizer.param_groups[0]["params"][0]].update(
            same=torch.full((2,), value, dtype=torch.bfloat16), row=torch.full((3,), value)
        )
        return optimizer

    tensors, rest = capture_optimizer(made(0.5), from_outside=True)
    fresh = made(0.0)
    restore_optimizer(fresh, tensors, rest)
    (state,) = fresh.state.values()
    assert (state["same"].dtype, state["same"].tolist()) == (torch.bfloat16, [0.5, 0.5])
    assert state["row"].tolist() == [0.5, 0.5, 0.5]


def test_the_state_of_a_weight_that_is_not_there_is_refused():
    optimizer = counting("other")
    optimizer.step()
    with pytest.raises(ModelFileError, match="optimizer trained 'other', which this run does not"):
        restore_optimizer(counting(), *capture_optimizer(optimizer, from_outside=True))
