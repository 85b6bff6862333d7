"""One toolkit's conventions as data: a section a part."""

from __future__ import annotations

from pydantic import Field

from fpn.features.backbones.resnet_variants import BackboneConfig
from fpn.features.necks.config import NeckConfig
from fpn.heads.anchors import AnchorsConfig
from fpn.heads.box import BoxConfig
from fpn.heads.box_coder import CoderConfig
from fpn.heads.roi_pooler import RoIConfig
from fpn.heads.rpn import RPNConfig
from fpn.preprocessing.config import PixelsConfig
from fpn.sections import Section


class Dialect(Section):
    """How one toolkit speaks FPN. Each section is what configures the part of that name, declared beside that part.

    A detector is built *from* a dialect; nothing else in the code knows a toolkit's name.
    """

    name: str = Field(max_length=200, description="Lower-case key, as in `fpn explain --dialect NAME`.")
    source: str = Field(
        max_length=2000, description="Where the values were read: paper section, or repository and file."
    )
    pixels: PixelsConfig = Field(default=PixelsConfig(), description="preprocessing")
    backbone: BackboneConfig = Field(default=BackboneConfig(), description="bottom-up path")
    neck: NeckConfig = Field(default=NeckConfig(), description="pyramid")
    anchors: AnchorsConfig = Field(default=AnchorsConfig(), description="shapes and places")
    coder: CoderConfig = Field(default=CoderConfig(), description="box coding")
    rpn: RPNConfig = Field(default=RPNConfig(), description="proposals")
    roi: RoIConfig = Field(default=RoIConfig(), description="RoI pooling")
    box: BoxConfig = Field(default=BoxConfig(), description="box head")
