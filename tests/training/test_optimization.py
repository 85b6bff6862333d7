from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fpn.errors import ConfigError
from fpn.training.config import TrainConfig
from fpn.training.optimization import (
    Average,
    Schedule,
    clip_gradients,
    freeze_parts,
    learning_rate,
    make_optimizer,
    parameter_groups,
    set_rate,
)


def parts() -> nn.Module:
    """A backbone of a convolution and a norm, and a head."""
    backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    return nn.ModuleDict({"features": nn.ModuleDict({"backbone": backbone}), "head": nn.Linear(2, 2)})


def test_warm_up_rises_by_equal_steps_to_the_peak():
    schedule = Schedule(peak=0.4, total=10, warmup=4, kind="constant", milestones=())
    assert [schedule.rate(step) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_cosine_falls_from_the_peak_over_its_half_towards_zero():
    schedule = Schedule(peak=1.0, total=8, warmup=0, kind="cosine", milestones=())
    rates = [schedule.rate(step) for step in (0, 2, 4, 6, 7)]
    assert rates == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0380602], abs=1e-6)


def test_cosine_begins_after_the_warm_up():
    schedule = Schedule(peak=1.0, total=6, warmup=2, kind="cosine", milestones=())
    assert [schedule.rate(step) for step in (1, 2, 4)] == pytest.approx([1.0, 1.0, 0.5])


def test_steps_fall_tenfold_at_each_milestone():
    schedule = Schedule(peak=1.0, total=100, warmup=0, kind="step", milestones=(0.6, 0.9))
    assert [schedule.rate(step) for step in (59, 60, 89, 90, 99)] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_takes_a_tenth_of_the_run_unless_told():
    assert Schedule.of(TrainConfig(), total=730).warmup == 73
    assert Schedule.of(TrainConfig(), total=90_000).warmup == 500
    assert Schedule.of(TrainConfig(warmup_steps=3), total=730).warmup == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"optimizer": "sgd", "batch_size": 4}, 0.005),
        ({"optimizer": "sgd", "batch_size": 4, "accumulate": 4}, 0.02),
        ({"optimizer": "adamw", "batch_size": 4}, 3e-4),
        ({"optimizer": "adamw", "batch_size": 16}, 6e-4),
        ({"optimizer": "adamw", "learning_rate": 0.5}, 0.5),
    ],
)
def test_the_peak_rate_follows_optimizer_and_images_a_step(settings, expected):
    assert learning_rate(TrainConfig(**settings)) == pytest.approx(expected)


def test_norms_and_biases_do_not_decay_and_the_backbone_has_its_own_rate():
    module = parts()
    backbone = module["features"].parameters()
    groups = parameter_groups(module, TrainConfig(weight_decay=0.1, backbone_multiplier=0.5), backbone=backbone)
    told = {name: (group["weight_decay"], group["multiplier"]) for group in groups for name in group["names"]}
    assert told == {
        "features.backbone.0.weight": (0.1, 0.5),
        "features.backbone.0.bias": (0.0, 0.5),
        "features.backbone.1.weight": (0.0, 0.5),
        "features.backbone.1.bias": (0.0, 0.5),
        "head.weight": (0.1, 1.0),
        "head.bias": (0.0, 1.0),
    }


def test_a_frozen_part_is_in_no_group_and_keeps_its_statistics():
    module = parts()
    module.train()
    freeze_parts(module, ["features.backbone"])
    names = [name for group in parameter_groups(module, TrainConfig()) for name in group["names"]]
    assert names == ["head.weight", "head.bias"]
    module["features"]["backbone"](torch.ones(2, 1, 4, 4))
    assert module["features"]["backbone"][1].running_mean.tolist() == [0, 0]


def test_an_unknown_frozen_part_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"'features\.bakbone'.*Did you mean 'features\.backbone'"):
        freeze_parts(parts(), ["features.bakbone"])


def test_nothing_left_to_train_is_refused():
    module = parts().requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        make_optimizer(module, TrainConfig())


def test_each_group_gets_its_multiple_of_the_rate():
    module = parts()
    backbone = module["features"].parameters()
    optimizer = make_optimizer(module, TrainConfig(backbone_multiplier=0.5), backbone=backbone)
    set_rate(optimizer, 0.2)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.1, 0.1, 0.2, 0.2]


@pytest.mark.parametrize(("limit", "after"), [(1.0, [0.6, 0.8]), (10.0, [3.0, 4.0]), (0.0, [3.0, 4.0])])
def test_a_gradient_of_length_5_is_cut_to_the_limit_and_its_length_told(limit, after):
    module = nn.Linear(2, 1, bias=False)
    module.weight.grad = torch.tensor([[3.0, 4.0]])
    norm = clip_gradients(make_optimizer(module, TrainConfig()), limit)
    assert norm.item() == pytest.approx(5)
    assert module.weight.grad[0].tolist() == pytest.approx(after, abs=1e-5)


def test_the_average_keeps_a_tenth_at_first_and_its_decay_later():
    average = Average(nn.Linear(1, 1), decay=0.9)
    assert [average.decay_at(step) for step in (0, 8, 80, 8000)] == pytest.approx([0.1, 0.5, 0.9, 0.9])


def test_the_average_of_1_then_2_then_3_by_hand():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(1.0)
    average = Average(module, decay=0.9)
    for step, weight in enumerate((2.0, 3.0)):
        module.weight.data.fill_(weight)
        average.update(step)
    # 0.1 * 1 + 0.9 * 2 = 1.9; then decay 2 / 11: 1.9 * 2 / 11 + 3 * 9 / 11
    assert average.weights["weight"].item() == pytest.approx(1.9 * 2 / 11 + 3 * 9 / 11)


def test_the_averaged_weights_are_there_inside_the_with_only_even_after_an_error():
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(1.0)
    average = Average(module, decay=0.9)
    module.weight.data.fill_(5.0)

    def fail_inside() -> None:
        with average.applied():
            assert module.weight.item() == 1.0
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail_inside()
    assert module.weight.item() == 5.0


def test_the_average_follows_norm_statistics_too():
    module = nn.BatchNorm1d(1)
    average = Average(module, decay=0.9)
    module.running_mean.fill_(10.0)
    average.update(0)
    assert average.weights["running_mean"].item() == pytest.approx(9.0)
