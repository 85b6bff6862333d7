"""One toolkit's conventions as data: a section a part."""

from __future__ import annotations

from pydantic import Field

from fpn.features.backbones.resnet_variants import BackboneConfig
from fpn.features.necks.config import NeckConfig
from fpn.heads.anchors import AnchorsConfig
from fpn.heads.atss import ATSSConfig
from fpn.heads.box import BoxConfig
from fpn.heads.box_coder import CoderConfig
from fpn.heads.cascade import CascadeConfig
from fpn.heads.fcos import FCOSConfig
from fpn.heads.keypoint import KeypointConfig
from fpn.heads.mask import MaskConfig
from fpn.heads.retinanet import RetinaNetConfig
from fpn.heads.roi_pooler import RoIConfig
from fpn.heads.rpn import RPNConfig
from fpn.heads.segments import SegmentConfig
from fpn.preprocessing.config import PixelsConfig
from fpn.sections import Section


class Dialect(Section):
    """How one toolkit speaks FPN. Each section is what configures the part of that name, declared beside that part.

    A detector is built *from* a dialect; nothing else in the code knows a toolkit's name. Here are the sections that
    every kind of detector has; a kind adds those of its own parts.
    """

    name: str = Field(max_length=200, description="Lower-case key, as in `fpn explain --dialect NAME`.")
    source: str = Field(
        max_length=2000, description="Where the values were read: paper section, or repository and file."
    )
    pixels: PixelsConfig = Field(default=PixelsConfig(), description="preprocessing")
    backbone: BackboneConfig = Field(default=BackboneConfig(), description="bottom-up path")
    neck: NeckConfig = Field(default=NeckConfig(), description="pyramid")

    @property
    def max_detections(self) -> int | None:
        """The most detections of an image; None: there is no such limit."""
        return None

    @property
    def anchor_ious(self) -> tuple[float, float] | None:
        """Below which IoU an anchor is background, and from which on it is an object's; None: IoU with fixed anchors
        does not decide what is learned."""
        return None


class AnchorDialect(Dialect):
    """Of a detector that predicts from anchors."""

    anchors: AnchorsConfig = Field(default=AnchorsConfig(), description="shapes and places")
    coder: CoderConfig = Field(default=CoderConfig(), description="box coding")


class TwoStageDialect(AnchorDialect):
    """Of proposals and a box head on them."""

    rpn: RPNConfig = Field(default=RPNConfig(), description="proposals")
    roi: RoIConfig = Field(default=RoIConfig(), description="RoI pooling")
    box: BoxConfig = Field(default=BoxConfig(), description="box head")

    @property
    def max_detections(self) -> int:
        """See `Dialect.max_detections`."""
        return self.box.limit

    @property
    def anchor_ious(self) -> tuple[float, float]:
        """See `Dialect.anchor_ious`."""
        return self.rpn.sampling.negative_iou, self.rpn.sampling.positive_iou


class CascadeDialect(TwoStageDialect):
    """Of proposals and several box heads in a row."""

    cascade: CascadeConfig = Field(default=CascadeConfig(), description="stages of the box head")


class RetinaNetDialect(AnchorDialect):
    """Of a dense head with many anchors a cell."""

    dense: RetinaNetConfig = Field(default=RetinaNetConfig(), description="dense head")

    @property
    def max_detections(self) -> int:
        """See `Dialect.max_detections`."""
        return self.dense.limit

    @property
    def anchor_ious(self) -> tuple[float, float]:
        """See `Dialect.anchor_ious`."""
        return self.dense.negative_iou, self.dense.positive_iou


class FCOSDialect(Dialect):
    """Of a dense head without anchors."""

    dense: FCOSConfig = Field(default=FCOSConfig(), description="dense head")

    @property
    def max_detections(self) -> int:
        """See `Dialect.max_detections`."""
        return self.dense.limit


class ATSSDialect(AnchorDialect):
    """Of a dense head with one anchor a cell, and thresholds that objects choose."""

    dense: ATSSConfig = Field(default=ATSSConfig(), description="dense head")

    @property
    def max_detections(self) -> int:
        """See `Dialect.max_detections`."""
        return self.dense.limit


class MaskDialect(TwoStageDialect):
    """Of a detector that also gives masks."""

    mask: MaskConfig = Field(default=MaskConfig(), description="mask head")


class CascadeMaskDialect(CascadeDialect, MaskDialect):
    """Of a cascade that also gives masks."""


class KeypointDialect(TwoStageDialect):
    """Of a detector that also gives keypoints."""

    keypoint: KeypointConfig = Field(default=KeypointConfig(), description="keypoint head")


class SegmentDialect(Dialect):
    """Of proposals that are segments."""

    segments: SegmentConfig = Field(default=SegmentConfig(), description="windows")

    @property
    def max_detections(self) -> int:
        """See `Dialect.max_detections`."""
        return self.segments.limit
