"""Feature Pyramid Network object detectors: train one on your own images, measure it, use it, ship it.

The names below are the public ones; each is imported when first used, so that `import fpn` itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fpn.version import __version__

_PUBLIC = {
    "Callback": "fpn.training.callbacks",
    "Classes": "fpn.structures",
    "Detections": "fpn.structures",
    "FpnError": "fpn.errors",
    "TrainConfig": "fpn.training.config",
    "atss": "fpn.detectors",
    "begin_with": "fpn.detectors",
    "draw": "fpn.drawing",
    "evaluate": "fpn.evaluation",
    "cascade_rcnn": "fpn.detectors",
    "export_model": "fpn.export.exporting",
    "export_weights": "fpn.interop",
    "faster_rcnn": "fpn.detectors",
    "fcos": "fpn.detectors",
    "find_learning_rate": "fpn.training.rate_range",
    "forecast_labels": "fpn.studies.label_budget.running",
    "import_weights": "fpn.interop",
    "keypoint_rcnn": "fpn.detectors",
    "mask_rcnn": "fpn.detectors",
    "list_splits": "fpn.data",
    "load": "fpn.export",
    "open_dataset": "fpn.data",
    "optimize": "fpn.inference.optimize",
    "plan_training": "fpn.training.recipes",
    "predict_tiled": "fpn.detectors.tiling",
    "report": "fpn.studies.report.report",
    "retinanet": "fpn.detectors",
    "save": "fpn.detectors",
    "segment_proposals": "fpn.detectors",
    "suggest": "fpn.studies.suggesting.suggest",
    "train": "fpn.training.trainer",
    "video_frames": "fpn.films",
}

__all__ = [
    "Callback",
    "Classes",
    "Detections",
    "FpnError",
    "TrainConfig",
    "__version__",
    "atss",
    "begin_with",
    "cascade_rcnn",
    "draw",
    "evaluate",
    "export_model",
    "export_weights",
    "faster_rcnn",
    "fcos",
    "find_learning_rate",
    "forecast_labels",
    "import_weights",
    "keypoint_rcnn",
    "list_splits",
    "load",
    "mask_rcnn",
    "open_dataset",
    "optimize",
    "plan_training",
    "predict_tiled",
    "report",
    "retinanet",
    "save",
    "segment_proposals",
    "suggest",
    "train",
    "video_frames",
]

if TYPE_CHECKING:
    from fpn.data import list_splits, open_dataset
    from fpn.detectors import (
        atss,
        begin_with,
        cascade_rcnn,
        faster_rcnn,
        fcos,
        keypoint_rcnn,
        mask_rcnn,
        retinanet,
        save,
        segment_proposals,
    )
    from fpn.detectors.tiling import predict_tiled
    from fpn.drawing import draw
    from fpn.errors import FpnError
    from fpn.evaluation import evaluate
    from fpn.export import load
    from fpn.export.exporting import export_model
    from fpn.films import video_frames
    from fpn.inference.optimize import optimize
    from fpn.interop import export_weights, import_weights
    from fpn.structures import Classes, Detections
    from fpn.studies.label_budget.running import forecast_labels
    from fpn.studies.report.report import report
    from fpn.studies.suggesting.suggest import suggest
    from fpn.training.callbacks import Callback
    from fpn.training.config import TrainConfig
    from fpn.training.rate_range import find_learning_rate
    from fpn.training.recipes import plan_training
    from fpn.training.trainer import train


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'fpn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
