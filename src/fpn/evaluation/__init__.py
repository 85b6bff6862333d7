"""How good a detector is: COCO AP of boxes, masks and keypoints, proposal AR; how sure that is, and where to cut."""

from fpn.evaluation.bootstrap import Interval, Intervals, bootstrap_intervals
from fpn.evaluation.calibration import Calibration, Goal, calibrate, judge_thresholds
from fpn.evaluation.coco import (
    CocoMetrics,
    KeypointMetrics,
    ProposalRecall,
    coco_metrics,
    keypoint_metrics,
    proposal_recall,
)
from fpn.evaluation.comparison import Comparison, compare_matches
from fpn.evaluation.evaluate import choose_tasks, evaluate
from fpn.evaluation.matches import Matches, match_detections
from fpn.evaluation.report import Evaluation
from fpn.evaluation.tasks import TASKS, Task

__all__ = [
    "TASKS",
    "Calibration",
    "CocoMetrics",
    "Comparison",
    "Evaluation",
    "Goal",
    "Interval",
    "Intervals",
    "KeypointMetrics",
    "Matches",
    "ProposalRecall",
    "Task",
    "bootstrap_intervals",
    "calibrate",
    "choose_tasks",
    "coco_metrics",
    "compare_matches",
    "evaluate",
    "judge_thresholds",
    "keypoint_metrics",
    "match_detections",
    "proposal_recall",
]
