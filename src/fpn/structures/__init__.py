"""Frozen dataclasses that cross borders, and nothing else."""

from fpn.structures.classes import OBJECT, Classes
from fpn.structures.images import ImageBatch
from fpn.structures.instances import Detections, Proposals, Targets
from fpn.structures.keypoints import Skeleton
from fpn.structures.levels import Features, Level
from fpn.structures.loss_terms import LossTerms
from fpn.structures.masks import Masks
from fpn.structures.thresholds import Thresholds

__all__ = [
    "OBJECT",
    "Classes",
    "Detections",
    "Features",
    "ImageBatch",
    "Level",
    "LossTerms",
    "Masks",
    "Proposals",
    "Skeleton",
    "Targets",
    "Thresholds",
]
