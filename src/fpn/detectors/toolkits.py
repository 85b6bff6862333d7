"""How each toolkit speaks Faster R-CNN on FPN: some twenty conventions as data.

Toolkits that all implement the same paper differ in these fields, and that is why weights do not travel between them.
A detector is built *from* a dialect; nothing else in the code knows a toolkit's name.
"""

from __future__ import annotations

from fpn.detectors.dialect import TwoStageDialect
from fpn.features.backbones.resnet_variants import BackboneConfig
from fpn.features.necks.config import NeckConfig
from fpn.heads.anchors import AnchorsConfig
from fpn.heads.box import BoxConfig
from fpn.heads.box_coder import CoderConfig
from fpn.heads.roi_pooler import RoIConfig
from fpn.heads.rpn import RPNConfig
from fpn.preprocessing.config import PixelsConfig

_ANCHORS, _ROIS = RPNConfig().sampling, BoxConfig().sampling

PAPER = TwoStageDialect(
    # Two departures, both after the paper: RoIAlign (He et al. 2017, arXiv:1703.06870) where it has RoI pooling, and
    # plain L1 where Girshick 2015 has smooth L1. What the network sees is what its backbone was trained on.
    name="paper",
    source="Lin et al. 2017, arXiv:1612.03144, sections 3 to 5; Ren et al. 2015, arXiv:1506.01497, where it is silent",
)

TORCHVISION = TwoStageDialect(
    name="torchvision",
    source="torchvision 0.29: models/detection/{faster_rcnn,rpn,roi_heads,transform}.py, ops/poolers.py",
    pixels=PixelsConfig(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize="torch"),
    anchors=AnchorsConfig(rounded=True, order="ratio_major", strides="measured"),
    rpn=RPNConfig(min_size=1e-3, beta=1 / 9),
    roi=RoIConfig(aligned=False, scale="measured"),
    box=BoxConfig(background="first", min_size=1e-2, beta=1 / 9),
)

TORCHVISION_V2 = TORCHVISION.changed(
    name="torchvision_v2",
    source="torchvision 0.29: models/detection/faster_rcnn.py, fasterrcnn_resnet50_fpn_v2",
    neck={"norm": "batch"},
    rpn={"num_convolutions": 2},
    box={"head": "convolutions", "norm": "batch"},
)

DETECTRON2 = TwoStageDialect(
    name="detectron2",
    source="facebookresearch/detectron2 02b5c4e: config/defaults.py, configs/Base-RCNN-FPN.yaml, modeling/",
    pixels=PixelsConfig(channel_order="bgr", value_range=255.0, mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0)),
    backbone=BackboneConfig(stride_on="1x1"),
    rpn=RPNConfig(before_nms=(2000, 1000), after_nms=(1000, 1000), normalizer="nominal"),
    roi=RoIConfig(sampling_ratio=0),
)

VITDET = DETECTRON2.changed(
    name="vitdet",
    source="facebookresearch/detectron2 02b5c4e: projects/ViTDet/, configs/common/models/mask_rcnn_vitdet.py",
    pixels=PixelsConfig(
        value_range=255.0,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        short_side=1024,
        long_side=1024,
        # All images become squares of this side: blocks that look at the whole image see the padding, too.
        size_multiple=1024,
    ),
    backbone=BackboneConfig(),
    rpn={"num_convolutions": 2},
    box={"head": "convolutions", "norm": "layer"},
)

MMDETECTION = TwoStageDialect(
    name="mmdetection",
    source="open-mmlab/mmdetection 3.x: configs/_base_/models/faster-rcnn_r50_fpn.py, models/dense_heads, task_modules",
    pixels=PixelsConfig(
        value_range=255.0, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), resize="opencv_8bit"
    ),
    anchors=AnchorsConfig(order="ratio_major"),
    coder=CoderConfig(clamp_both=True),
    rpn=RPNConfig(
        before_nms=(2000, 1000),
        after_nms=(1000, 1000),
        sampling=_ANCHORS.changed(best_iou=0.3, best_owns=True),
        valid_multiple=32,
    ),
    roi=RoIConfig(sampling_ratio=0),
    box=BoxConfig(nms_frame="original"),
)

FPN_PYTORCH = TwoStageDialect(
    # Kept as they are, though mistaken, because the weights were trained with them: the last stage has stride 1 while
    # its anchors are laid with 32 and 64 pixels, so that they reach far beyond the image; the softmax pairs other
    # channels than are read; equation 1 has the natural logarithm; padded proposals are classified like real ones.
    # `top_down` is that of torch 0.2 and 0.3, for which the file was written; from torch 0.4 on it is "bilinear".
    name="fpn_pytorch",
    source="jwyang/fpn.pytorch 23bd1d2: lib/model/{fpn,rpn,utils}, cfgs/res101.yml, test_net.py",
    pixels=PixelsConfig(
        channel_order="bgr",
        value_range=255.0,
        mean=(102.9801, 115.9465, 122.7717),
        std=(1.0, 1.0, 1.0),
        short_side=600,
        long_side=None,
        resize="opencv",
        size_multiple=1,
    ),
    backbone=BackboneConfig(stride_on="1x1", stem_pool="ceil", last_stage_stride=1),
    neck=NeckConfig(top_down="bilinear_corners", smoothed="all_but_top", smooth_before_merge=True),
    anchors=AnchorsConfig(ratio="width/height", strides=(4, 8, 16, 32, 64)),
    coder=CoderConfig(clamp=None, legacy_plus_one=True),
    rpn=RPNConfig(
        objectness="softmax_mispaired",
        channels=512,
        scope="all",
        before_nms=(12000, 6000),
        after_nms=(2000, 300),
        min_size=None,
        padded=True,
        inside_only=True,
        beta=1 / 9,
    ),
    roi=RoIConfig(level_rule="round_ln", sampler="align_avg", scale="first_height"),
    box=BoxConfig(
        head="convolution",
        background="first",
        sampling=_ROIS.changed(count=128),
        beta=1.0,
        score_limit=0.0,
        nms=0.3,
        nms_frame="original",
    ),
)

PYTORCH_FPN = TwoStageDialect(
    # A pyramid and no detector: from here on down the fields are the defaults. FPN101() has [2, 2, 2, 2] blocks.
    # `top_down` is that of torch >= 0.4; with torch 0.3, current when the file was written, it was "bilinear_corners".
    name="pytorch_fpn",
    source="kuangliu/pytorch-fpn 4421a71: fpn.py",
    neck=NeckConfig(top_down="bilinear", smoothed="all_but_top", extra_levels="none"),
    anchors=AnchorsConfig(sizes=((32.0,), (64.0,), (128.0,), (256.0,))),
)

MATTERPORT = TwoStageDialect(
    name="matterport",
    source="matterport/Mask_RCNN: mrcnn/{config,model,utils}.py",
    pixels=PixelsConfig(
        value_range=255.0,
        mean=(123.7, 116.8, 103.9),
        std=(1.0, 1.0, 1.0),
        short_side=800,
        long_side=1024,
        resize="square",
        size_multiple=64,
        pad_before_mean=True,
        whole_pixels=True,
    ),
    backbone=BackboneConfig(stride_on="1x1", norm_epsilon=1e-3, conv_bias=True, stem_pool="same"),
    anchors=AnchorsConfig(ratio="width/height"),
    coder=CoderConfig(clamp=None, inclusive_corners=True),
    rpn=RPNConfig(
        weights=(10.0, 10.0, 5.0, 5.0),
        objectness="softmax",
        channels=512,
        scope="all",
        before_nms=(6000, 6000),
        after_nms=(2000, 1000),
        min_size=None,
        padded=True,
        beta=1.0,
    ),
    roi=RoIConfig(level_rule="round_log2", size_relative=True, sampler="crop_and_resize"),
    box=BoxConfig(
        head="convolution_norm",
        background="first",
        sampling=_ROIS.changed(count=200, positive_fraction=0.33),
        beta=1.0,
        choice="best",
        score_limit=0.7,
        nms=0.3,
    ),
)

MATTERPORT_128 = MATTERPORT.changed(
    name="matterport_128",
    source="matterport/Mask_RCNN with an fpn_graph whose last 3x3 convolutions have 128 filters",
    neck={"output_channels": 128},
)

MINIMAL = TwoStageDialect(
    # A pyramid and no detector. It calls its coarsest level p1; here levels are named by their stride, finest p1.
    name="minimal",
    source="the three-level teaching FPN: three stride-2 convolutions, a 3x3 at the top, smoothed maps handed down",
    neck=NeckConfig(
        channels=32,
        output_channels=32,
        smoothed="all_but_top",
        smooth_before_merge=True,
        top_kernel=3,
        extra_levels="none",
        finest_level=1,
    ),
    anchors=AnchorsConfig(sizes=((16.0,), (32.0,), (64.0,))),
)

DIALECTS: dict[str, TwoStageDialect] = {
    dialect.name: dialect
    for dialect in (
        PAPER,
        TORCHVISION,
        TORCHVISION_V2,
        DETECTRON2,
        VITDET,
        MMDETECTION,
        FPN_PYTORCH,
        PYTORCH_FPN,
        MATTERPORT,
        MATTERPORT_128,
        MINIMAL,
    )
}
