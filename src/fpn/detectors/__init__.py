"""Parts put together into a detector with verbs."""

from fpn.detectors.detector import Detector
from fpn.detectors.dialect import Dialect, TwoStageDialect
from fpn.detectors.fine_tuning import Carried, begin_with
from fpn.detectors.model_file import load, read_header, save
from fpn.detectors.one_stage import OneStageDetector
from fpn.detectors.presets import (
    atss,
    cascade_rcnn,
    faster_rcnn,
    fcos,
    keypoint_rcnn,
    mask_rcnn,
    named_preset,
    retinanet,
    segment_proposals,
)
from fpn.detectors.toolkits import DIALECTS, PAPER, TORCHVISION
from fpn.detectors.two_stage import TwoStageDetector
from fpn.preprocessing.preprocessor import Preprocessor

__all__ = [
    "DIALECTS",
    "PAPER",
    "TORCHVISION",
    "Carried",
    "Detector",
    "Dialect",
    "OneStageDetector",
    "Preprocessor",
    "TwoStageDetector",
    "TwoStageDialect",
    "atss",
    "begin_with",
    "cascade_rcnn",
    "faster_rcnn",
    "fcos",
    "keypoint_rcnn",
    "load",
    "mask_rcnn",
    "named_preset",
    "read_header",
    "retinanet",
    "save",
    "segment_proposals",
]
