"""Parts put together into a detector with verbs."""

from fpn.detectors.checkpoint import load, read_header, save
from fpn.detectors.detector import Detector
from fpn.detectors.dialects import DIALECTS, PAPER, TORCHVISION, Dialect
from fpn.detectors.preprocessing import Preprocessor
from fpn.detectors.presets import faster_rcnn
from fpn.detectors.rcnn import FasterRCNN

__all__ = [
    "DIALECTS",
    "PAPER",
    "TORCHVISION",
    "Detector",
    "Dialect",
    "FasterRCNN",
    "Preprocessor",
    "faster_rcnn",
    "load",
    "read_header",
    "save",
]
