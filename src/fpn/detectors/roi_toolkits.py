"""What toolkits' masks and keypoints add to their Faster R-CNN and Cascade R-CNN."""

from __future__ import annotations

from typing import Any

from fpn.detectors.cascade_toolkits import CASCADE_DIALECTS
from fpn.detectors.dialect import CascadeDialect, CascadeMaskDialect, KeypointDialect, MaskDialect, TwoStageDialect
from fpn.detectors.toolkits import DIALECTS
from fpn.heads.keypoint import KeypointConfig
from fpn.heads.mask import MaskConfig

# Those of the others are the defaults, which are Detectron2's.
_MATTERPORT = MaskConfig(norm="frozen", sampling="pixels")
_TORCHVISION = MaskConfig(sampling="pixels", aligned=False, threshold=None)
_MASKS = {
    "torchvision": _TORCHVISION,
    "torchvision_v2": _TORCHVISION.changed(norm="batch"),
    "vitdet": MaskConfig(norm="layer"),
    "mmdetection": MaskConfig(sampling="pixels"),
    # For the loss it reads masks that were shrunk to 56 x 56 cells a box, by single bilinear samples. RoIAlign of the
    # whole masks is nearer to what they show; what is learned from both differs in cells on an outline.
    "matterport": _MATTERPORT,
    "matterport_128": _MATTERPORT,
}
_KEYPOINTS = dict.fromkeys(("torchvision", "torchvision_v2"), KeypointConfig(score="logit"))


def with_masks(dialect: TwoStageDialect) -> MaskDialect:
    """The same toolkit's conventions with those of its masks; a cascade stays one."""
    kind = CascadeMaskDialect if isinstance(dialect, CascadeDialect) else MaskDialect
    return kind(**_sections(dialect), mask=_MASKS.get(dialect.name, MaskConfig()))


def with_keypoints(dialect: TwoStageDialect) -> KeypointDialect:
    """The same toolkit's conventions with those of its keypoints."""
    return KeypointDialect(**_sections(dialect), keypoint=_KEYPOINTS.get(dialect.name, KeypointConfig()))


def _sections(dialect: TwoStageDialect) -> dict[str, Any]:
    return {name: getattr(dialect, name) for name in type(dialect).model_fields}


MASK_DIALECTS = {name: with_masks(dialect) for name, dialect in DIALECTS.items()}
CASCADE_MASK_DIALECTS = {name: with_masks(dialect) for name, dialect in CASCADE_DIALECTS.items()}
KEYPOINT_DIALECTS = {name: with_keypoints(dialect) for name, dialect in DIALECTS.items()}
