"""How each toolkit speaks FPN: some twenty conventions as data.

Toolkits that all implement the same paper differ in these fields, and that is why weights do not travel between them.
A detector is built *from* a dialect; nothing else in the code knows a toolkit's name.
"""

from __future__ import annotations

from dataclasses import replace

from fpn.detectors.dialect import Dialect

PAPER = Dialect(
    name="paper",
    # Two departures, both after the paper: RoIAlign (He et al. 2017, arXiv:1703.06870) where it has RoI pooling, and
    # plain L1 where Girshick 2015 has smooth L1. What the network sees is what its backbone was trained on.
    source="Lin et al. 2017, arXiv:1612.03144, sections 3 to 5; Ren et al. 2015, arXiv:1506.01497, where it is silent",
)

TORCHVISION = Dialect(
    name="torchvision",
    source="torchvision 0.29: models/detection/{faster_rcnn,rpn,roi_heads,transform}.py, ops/poolers.py",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    resize="torch",
    anchor_rounding=True,
    anchor_order="ratio_major",
    anchor_strides="measured",
    proposal_min_size=1e-3,
    proposal_beta=1 / 9,
    roi_aligned=False,
    roi_scale="measured",
    background="first",
    detection_min_size=1e-2,
    box_beta=1 / 9,
)

DETECTRON2 = Dialect(
    name="detectron2",
    source="facebookresearch/detectron2 02b5c4e: config/defaults.py, configs/Base-RCNN-FPN.yaml, modeling/",
    channel_order="bgr",
    value_range=255.0,
    mean=(103.53, 116.28, 123.675),
    std=(1.0, 1.0, 1.0),
    bottleneck_stride="1x1",
    proposals_before_nms=(2000, 1000),
    proposals_after_nms=(1000, 1000),
    roi_sampling_ratio=0,
)

MMDETECTION = Dialect(
    name="mmdetection",
    source="open-mmlab/mmdetection 3.x: configs/_base_/models/faster-rcnn_r50_fpn.py, models/dense_heads, task_modules",
    value_range=255.0,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    resize="opencv_8bit",
    anchor_order="ratio_major",
    delta_clamp_both=True,
    proposals_before_nms=(2000, 1000),
    proposals_after_nms=(1000, 1000),
    anchor_best_iou=0.3,
    roi_sampling_ratio=0,
)

FPN_PYTORCH = Dialect(
    name="fpn_pytorch",
    # Kept as they are, though mistaken, because the weights were trained with them: the last stage has stride 1 while
    # its anchors are laid with 32 and 64 pixels, so that they reach far beyond the image; the softmax pairs other
    # channels than are read; equation 1 has the natural logarithm; padded proposals are classified like real ones.
    # `top_down` is that of torch 0.2 and 0.3, for which the file was written; from torch 0.4 on it is "bilinear".
    source="jwyang/fpn.pytorch 23bd1d2: lib/model/{fpn,rpn,utils}, cfgs/res101.yml, test_net.py",
    channel_order="bgr",
    value_range=255.0,
    mean=(102.9801, 115.9465, 122.7717),
    std=(1.0, 1.0, 1.0),
    short_side=600,
    long_side=None,
    resize="opencv",
    size_multiple=1,
    bottleneck_stride="1x1",
    stem_pool="ceil",
    last_stage_stride=1,
    top_down="bilinear_corners",
    smoothed="all_but_top",
    smooth_before_merge=True,
    anchor_ratio="width/height",
    anchor_strides=(4, 8, 16, 32, 64),
    delta_clamp=None,
    legacy_plus_one=True,
    objectness="softmax_mispaired",
    proposal_channels=512,
    proposal_scope="all",
    proposals_before_nms=(12000, 6000),
    proposals_after_nms=(2000, 300),
    proposal_min_size=None,
    pad_proposals=True,
    anchors_inside_only=True,
    proposal_beta=1 / 9,
    level_rule="round_ln",
    roi_sampler="align_avg",
    roi_scale="first_height",
    box_head="convolution",
    background="first",
    roi_samples=128,
    box_beta=1.0,
    score_limit=0.0,
    detection_nms=0.3,
    detection_nms_frame="original",
)

PYTORCH_FPN = Dialect(
    name="pytorch_fpn",
    # A pyramid and no detector: from here on down the fields are the defaults. FPN101() has [2, 2, 2, 2] blocks.
    # `top_down` is that of torch >= 0.4; with torch 0.3, current when the file was written, it was "bilinear_corners".
    source="kuangliu/pytorch-fpn 4421a71: fpn.py",
    top_down="bilinear",
    smoothed="all_but_top",
    extra_levels="none",
    anchor_sizes=((32.0,), (64.0,), (128.0,), (256.0,)),
)

MATTERPORT = Dialect(
    name="matterport",
    source="matterport/Mask_RCNN: mrcnn/{config,model,utils}.py",
    value_range=255.0,
    mean=(123.7, 116.8, 103.9),
    std=(1.0, 1.0, 1.0),
    short_side=800,
    long_side=1024,
    resize="square",
    size_multiple=64,
    pad_before_mean=True,
    bottleneck_stride="1x1",
    norm_epsilon=1e-3,
    backbone_bias=True,
    stem_pool="same",
    anchor_ratio="width/height",
    proposal_weights=(10.0, 10.0, 5.0, 5.0),
    delta_clamp=None,
    inclusive_corners=True,
    objectness="softmax",
    proposal_channels=512,
    proposal_scope="all",
    proposals_before_nms=(6000, 6000),
    proposals_after_nms=(2000, 1000),
    proposal_min_size=None,
    pad_proposals=True,
    proposal_beta=1.0,
    level_rule="round_log2",
    level_size_relative=True,
    roi_sampler="crop_and_resize",
    box_head="convolution_norm",
    background="first",
    roi_samples=200,
    roi_positive_fraction=0.33,
    box_beta=1.0,
    head_class_choice="best",
    score_limit=0.7,
    detection_nms=0.3,
    whole_pixels=True,
)

MATTERPORT_128 = replace(
    MATTERPORT,
    name="matterport_128",
    source="matterport/Mask_RCNN with an fpn_graph whose last 3x3 convolutions have 128 filters",
    output_channels=128,
)

MINIMAL = Dialect(
    name="minimal",
    # A pyramid and no detector. It calls its coarsest level p1; here levels are named by their stride, finest p1.
    source="the three-level teaching FPN: three stride-2 convolutions, a 3x3 at the top, smoothed maps handed down",
    pyramid_channels=32,
    output_channels=32,
    smoothed="all_but_top",
    smooth_before_merge=True,
    top_kernel=3,
    extra_levels="none",
    finest_level=1,
    anchor_sizes=((16.0,), (32.0,), (64.0,)),
)

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        PAPER,
        TORCHVISION,
        DETECTRON2,
        MMDETECTION,
        FPN_PYTORCH,
        PYTORCH_FPN,
        MATTERPORT,
        MATTERPORT_128,
        MINIMAL,
    )
}
