"""How good a detector is: COCO AP of boxes, masks and keypoints, and proposal AR."""

from fpn.evaluation.coco import (
    CocoMetrics,
    KeypointMetrics,
    ProposalRecall,
    coco_metrics,
    keypoint_metrics,
    proposal_recall,
)
from fpn.evaluation.evaluate import choose_tasks, evaluate
from fpn.evaluation.report import Evaluation
from fpn.evaluation.tasks import TASKS, Task

__all__ = [
    "TASKS",
    "CocoMetrics",
    "Evaluation",
    "KeypointMetrics",
    "ProposalRecall",
    "Task",
    "choose_tasks",
    "coco_metrics",
    "evaluate",
    "keypoint_metrics",
    "proposal_recall",
]
