"""What an exported file says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fpn.detectors.detector import Detector
from fpn.version import __version__

ExportFormat: TypeAlias = Literal["onnx", "openvino", "torch"]
# What goes in: images as they are, or as `Preprocessor` makes them.
Images: TypeAlias = Literal["original", "network"]

# Raised when a file of this version could not be read by an older `fpn`.
FILE_FORMAT = 1
OUTPUT_NAMES = ("boxes", "scores", "labels", "counts", "masks", "keypoints")


@dataclass(frozen=True)
class GraphInfo:
    """What is in a file.

    Attributes:
        images: what goes in.
        outputs: names of what comes out, in order.
    """

    images: Images
    outputs: tuple[str, ...]

    def header(self, detector: Detector) -> dict[str, Any]:
        """What the file says about itself: all that a detector's own file does, but for the weights."""
        header = {
            "format": FILE_FORMAT,
            "fpn": __version__,
            "recipe": detector.recipe.to_json(),
            "pixels": detector.preprocessor.config.to_json(),
            "training": detector.training_record,
            "images": self.images,
            "outputs": list(self.outputs),
        }
        if detector.thresholds is not None:
            header["thresholds"] = detector.thresholds.to_json()
        return header
