"""How good a detector is: COCO AP and proposal AR."""

from fpn.evaluation.coco import CocoMetrics, ProposalRecall, coco_metrics, proposal_recall
from fpn.evaluation.evaluate import evaluate
from fpn.evaluation.report import Evaluation

__all__ = ["CocoMetrics", "Evaluation", "ProposalRecall", "coco_metrics", "evaluate", "proposal_recall"]
