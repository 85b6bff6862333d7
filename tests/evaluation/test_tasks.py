from __future__ import annotations

import pytest

from fpn.errors import ConfigError
from fpn.evaluation.coco import CocoMetrics, ProposalRecall
from fpn.evaluation.tasks import TASKS, find_task, find_tasks


def test_each_task_names_its_metrics_and_the_one_that_says_most() -> None:
    assert {name: task.metrics[0] for name, task in TASKS.items()} == {
        "boxes": "ap",
        "masks": "mask_ap",
        "segments": "segment_ar1000",
        "keypoints": "keypoint_ap",
        "proposals": "proposal_ar100",
    }
    assert TASKS["boxes"].metrics[:6] == ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    assert TASKS["proposals"].metrics[4] == "proposal_ar1000"
    assert [len(task.metrics) for task in TASKS.values()] == [12, 12, 12, 10, 8]


def test_no_metric_belongs_to_two_tasks() -> None:
    names = [name for task in TASKS.values() for name in task.metrics]
    assert len(names) == len(set(names)) == 54


def test_a_metric_leads_to_its_task() -> None:
    assert find_task("ar100") is TASKS["boxes"]
    assert find_task("proposal_ar100") is TASKS["proposals"]
    with pytest.raises(ConfigError, match=r"metric 'masks_ap'.*Did you mean 'mask_ap'"):
        find_task("masks_ap")


def test_tasks_are_found_by_name_in_one_order() -> None:
    assert find_tasks(["proposals", "boxes", "boxes"]) == (TASKS["boxes"], TASKS["proposals"])
    assert find_tasks("masks") == (TASKS["masks"],)
    with pytest.raises(ConfigError, match=r"task 'mask'.*Did you mean 'masks'"):
        find_tasks(["mask"])


def test_figures_come_by_the_metrics_names() -> None:
    recall = ProposalRecall(*(number / 10 for number in range(8)))
    assert TASKS["proposals"].named(recall)["proposal_ar1000"] == pytest.approx(0.4)
    figures = CocoMetrics(*(number / 100 for number in range(12)), per_class=())
    assert TASKS["masks"].named(figures)["mask_ar_large"] == pytest.approx(0.11)
    assert "mask_per_class" not in TASKS["masks"].named(figures)
