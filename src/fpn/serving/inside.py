"""A look into a model while it detects: `look_inside` for one image and any kind of model."""

from __future__ import annotations

from PIL import Image

from fpn.detectors.detector import Detector
from fpn.detectors.one_stage import OneStageDetector
from fpn.detectors.prediction import detecting, enter
from fpn.detectors.segment_proposer import SegmentProposer
from fpn.detectors.two_stage import TwoStageDetector
from fpn.export.exported import ExportedDetector
from fpn.heads.dense_towers import TowerHead
from fpn.inference.optimize import OptimizedDetector
from fpn.preprocessing.frame import Frame
from fpn.preprocessing.resizing import network_frame
from fpn.serving.inside_figures import SHOWN, Explained, Inside, LevelInside, describe_level, rounded_scores
from fpn.serving.inside_one_stage import look_into_one_stage
from fpn.serving.inside_two_stage import look_into_two_stage
from fpn.shapes import Size
from fpn.structures import Detections, ImageBatch


def look_inside(model: Detector, image: Image.Image) -> Inside:
    """What a model thinks of one image on its way to the detections: levels, anchors, what was chosen, and why.

    Args:
        model: of any kind. An exported file shows its detections alone, and a note says so.
        image: upright RGB.
    """
    prepared = model.preprocessor.prepare(image)
    images, frame = enter(model, [prepared]), prepared.frame
    with detecting(model):
        if isinstance(model, OptimizedDetector):
            inner = model.inner
            return model.perform(lambda batch: _look(inner, batch, frame), images)
        return _look(model, images, frame)


def why_not(model: Detector) -> str | None:
    """Why the inside of a model is not shown; None: it is."""
    inner = model.inner if isinstance(model, OptimizedDetector) else model
    if isinstance(inner, TwoStageDetector) or (
        isinstance(inner, OneStageDetector) and isinstance(inner.head, TowerHead)
    ):
        return None
    if isinstance(inner, SegmentProposer):
        return "This model proposes segments by windows: its levels are shown, but not how windows were chosen."
    if isinstance(inner, ExportedDetector):
        return (
            "This is an exported file: it gives detections and nothing of what lies inside. Serve the .safetensors "
            "file that it was made of to look into it."
        )
    return f"Nothing is known of the inside of a {type(inner).__name__}: its detections alone are shown."


def _look(model: Detector, images: ImageBatch, frame: Frame) -> Inside:
    if isinstance(model, TwoStageDetector):
        return look_into_two_stage(model, images, frame)
    if isinstance(model, OneStageDetector) and isinstance(model.head, TowerHead):
        return look_into_one_stage(model, model.head, images, frame)
    levels: tuple[LevelInside, ...] = ()
    if isinstance(model, SegmentProposer):
        features, size = model.features(images.pixels), Size(*images.sizes[0].tolist())
        levels = tuple(
            describe_level(level, features[level.name][0], size, frame, read_by=("windows",), places=None)
            for level in model.features.levels
        )
    found = model.preprocessor.restore(model.detect(images)[0].to("cpu"), frame)
    return Inside(
        kind=model.recipe.kind,
        image=frame.original,
        # Not the frame's: an exported file that has the preprocessor inside gets the image as it is.
        network=network_frame(frame.original, **model.preprocessor.config.sizing).network,
        levels=levels,
        count=len(found),
        detections=_told(found[:SHOWN]),
        selection=None,
        note=why_not(model),
    )


def _told(found: Detections) -> tuple[Explained, ...]:
    boxes = [tuple(round(value, 2) for value in box) for box in found.boxes.tolist()]
    rows = zip(boxes, rounded_scores(found.scores), found.labels.tolist(), strict=True)
    return tuple(Explained(box, score, label) for box, score, label in rows)
