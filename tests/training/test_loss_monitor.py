from __future__ import annotations

import pytest
import torch

from fpn.errors import TrainingError
from fpn.structures import LossTerms
from fpn.training.loss_monitor import LossWatch, Meter, StepValues


def step_of(count: float, box: float, objects: float = 0, norm: float = 1) -> StepValues:
    terms = {"count": torch.tensor(count), "box": torch.tensor(box)}
    return StepValues.of([LossTerms(terms, {"objects": torch.tensor(objects)})], torch.tensor(norm))


def watch(*, immediate: bool) -> LossWatch:
    return LossWatch(immediate=immediate, names=lambda index: f"{index}.jpg", remedy="Go on.")


def test_the_meter_means_over_the_interval_and_begins_anew():
    meter = Meter()
    meter.add(step_of(1, 10, objects=4, norm=2))
    meter.add(step_of(3, 20, objects=6, norm=4))
    assert meter.read() == {"loss": 17, "count": 2, "box": 15, "objects": 5, "gradient_norm": 3}
    meter.add(step_of(7, 0))
    assert meter.read()["loss"] == 7


def test_batches_of_one_step_are_averaged():
    two = [LossTerms({"count": torch.tensor(value)}) for value in (1.0, 3.0)]
    assert StepValues.of(two, torch.tensor(0.5)).values.tolist() == [2.0, 0.5]


def test_a_device_that_would_wait_is_looked_at_later_and_the_right_batch_is_named():
    later = watch(immediate=False)
    later.add(1, step_of(1, 1), [0, 1])
    later.add(2, step_of(1, float("inf")), [2, 3])
    later.add(3, step_of(float("nan"), 1), [4, 5])
    with pytest.raises(TrainingError, match=r"step 2: box = inf is not finite[^:]*:\s+2\.jpg\s+3\.jpg\n.*Go on\."):
        later.look()


def test_on_a_cpu_each_step_is_looked_at():
    with pytest.raises(TrainingError, match="step 1: count = nan"):
        watch(immediate=True).add(1, step_of(float("nan"), 1), [0])


def test_a_gradient_that_is_not_finite_stops_the_run_too():
    with pytest.raises(TrainingError, match="gradient_norm = inf"):
        watch(immediate=True).add(1, step_of(1, 1, norm=float("inf")), [0])
