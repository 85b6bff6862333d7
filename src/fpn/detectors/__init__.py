"""Parts put together into a detector with verbs."""

from fpn.detectors.detector import Detector
from fpn.detectors.dialect import Dialect
from fpn.detectors.model_file import load, read_header, save
from fpn.detectors.presets import faster_rcnn
from fpn.detectors.toolkits import DIALECTS, PAPER, TORCHVISION
from fpn.detectors.two_stage import TwoStageDetector
from fpn.preprocessing.preprocessor import Preprocessor

__all__ = [
    "DIALECTS",
    "PAPER",
    "TORCHVISION",
    "Detector",
    "Dialect",
    "Preprocessor",
    "TwoStageDetector",
    "faster_rcnn",
    "load",
    "read_header",
    "save",
]
