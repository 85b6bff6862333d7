"""One toolkit's conventions as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One toolkit's conventions. Each field says what it means; the instances say where its value comes from."""

    name: str
    """Lower-case key, as in `fpn explain --dialect NAME` and in a model file."""
    source: str
    """Where the values were read: paper section, or repository and file."""

    # --- pixels -------------------------------------------------------------------------------------------------
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order of the colour channels that the network sees."""
    value_range: float = 1.0
    """Pixel value of white before mean and std: 1 or 255."""
    mean: tuple[float, float, float] | None = None
    """Subtracted a channel, in units of `value_range`, in the network's channel order; None: as the backbone's
    ImageNet weights were trained."""
    std: tuple[float, float, float] | None = None
    """Divided by, a channel, after the mean; None: as `mean`."""
    short_side: int = 800
    """The shorter side of an image is scaled to this many pixels ..."""
    long_side: int | None = 1333
    """... unless the longer side would exceed this one; None: no limit."""
    resize: Literal["pillow", "torch", "opencv", "opencv_8bit", "square", "centred_64"] = "pillow"
    """How pixels are resampled. `pillow`: 8-bit, antialiased bilinear. `torch`: float, not antialiased, size rounded
    down. `opencv`: float, sampled at exactly 1/scale. `opencv_8bit`: 8-bit, not antialiased. `square`: 8-bit by
    truncation, then padded at all sides to a square of `long_side` (matterport); `centred_64`: to multiples of 64."""
    size_multiple: int = 32
    """Padded sides are multiples of this; 1: no padding."""
    pad_before_mean: bool = False
    """True: padding is black before the mean is subtracted, so the network sees -mean there; False: it sees 0."""

    # --- bottom-up path -----------------------------------------------------------------------------------------
    bottleneck_stride: Literal["1x1", "3x3"] = "3x3"
    """Which convolution of a ResNet bottleneck carries the stride."""
    norm_epsilon: float = 1e-5
    """Epsilon of the backbone's batch norms."""
    backbone_bias: bool = False
    """True: backbone convolutions have biases beside their norms (matterport)."""
    stem_pool: Literal["padded", "ceil", "same"] = "padded"
    """The 3x3/2 max-pool after the stem: padded by 1; unpadded with ceil_mode (Caffe); or TensorFlow's 'same'."""
    last_stage_stride: Literal[1, 2] = 2
    """Stride of the last stage. 1 gives C5 the stride of C4 (fpn.pytorch)."""

    # --- pyramid ------------------------------------------------------------------------------------------------
    pyramid_channels: int = 256
    """Channels of the laterals and sums."""
    output_channels: int = 256
    """Channels of P2..P6 (differs from `pyramid_channels` in matterport's 128-filter variant)."""
    top_down: Literal["nearest", "bilinear", "bilinear_corners"] = "nearest"
    """How the coarser map is brought to the lateral's size; `_corners` means align_corners=True."""
    smoothed: Literal["all", "all_but_top", "none"] = "all"
    """Which merged maps get a 3x3 convolution."""
    smooth_before_merge: bool = False
    """True: the smoothed map, not the plain sum, is what goes further down (fpn.pytorch)."""
    top_kernel: Literal[1, 3] = 1
    """Kernel of the top-most lateral (3 in the three-level teaching FPN)."""
    pyramid_bias: bool = True
    """Whether the pyramid's convolutions have biases."""
    extra_levels: Literal["none", "subsample", "convolutions_on_c5", "convolutions_on_p5"] = "subsample"
    """How P6 (and P7) are made: every second cell of P5, or stride-2 convolutions."""
    finest_level: int = 2
    """The finest level that heads use: 2 for Faster R-CNN, 3 for RetinaNet and FCOS."""

    # --- anchors ------------------------------------------------------------------------------------------------
    anchor_sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    """Square roots of anchor areas, one tuple a level, network pixels."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Aspect ratios, in the order of the channels."""
    anchor_ratio: Literal["height/width", "width/height"] = "height/width"
    """What a ratio means: with width/height, 0.5 is tall."""
    anchor_offset: float = 0.0
    """Centre of the first anchor, as a fraction of the stride: 0 corner, 0.5 cell centre."""
    anchor_rounding: bool = False
    """True: corners relative to the centre are rounded to whole pixels."""
    anchor_order: Literal["size_major", "ratio_major"] = "size_major"
    """Order of the anchors of one cell."""
    anchor_strides: tuple[int, ...] | Literal["declared", "measured"] = "declared"
    """Step of the grid: what the level declares; padded size // map size (torchvision); or fixed (fpn.pytorch)."""

    # --- box coding ---------------------------------------------------------------------------------------------
    proposal_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Multipliers of (dx, dy, dw, dh) in the RPN: 1 / std."""
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    """Multipliers of (dx, dy, dw, dh) in the box head."""
    delta_clamp: float | None = math.log(1000 / 16)
    """Upper limit of dw and dh before the exponential; None: no limit."""
    delta_clamp_both: bool = False
    """True: minus `delta_clamp` is their lower limit, too (MMDetection)."""
    legacy_plus_one: bool = False
    """True: a box's width is x2 - x1 + 1, in coding, areas, IoU and clipping (Matlab's inheritance)."""
    inclusive_corners: bool = False
    """True: inside the network x2 and y2 name the last pixel, yet a width is x2 - x1: what matterport's boxes, divided
    by (side - 1), amount to. Anchors end one pixel earlier and boxes are clipped to side - 1."""

    # --- proposals ----------------------------------------------------------------------------------------------
    objectness: Literal["sigmoid", "softmax", "softmax_mispaired"] = "sigmoid"
    """One logit an anchor, or two with softmax. `softmax_mispaired`: fpn.pytorch normalises channels (k, k + A) but
    reads pairs (2a, 2a + 1); kept so that its weights give its results."""
    proposal_channels: int | None = None
    """Width of the RPN's 3x3 convolution; None: the pyramid's output channels."""
    proposal_scope: Literal["level", "all"] = "level"
    """Whether top-k and NMS run within a level, or over all levels together."""
    proposals_before_nms: tuple[int, int] = (2000, 1000)
    """Top-k by score before NMS in (training, testing), a level or over all: `proposal_scope`."""
    proposals_after_nms: tuple[int, int] = (2000, 1000)
    """Proposals that remain an image in (training, testing), over all levels."""
    proposal_nms: float = 0.7
    """IoU above which a worse proposal is dropped."""
    proposal_min_size: float | None = 0.0
    """Proposals with a side not longer than this are dropped before NMS, network pixels; None: none are."""
    pad_proposals: bool = False
    """True: missing proposals are filled with (0, 0, 0, 0), which go through the box head (fpn.pytorch)."""
    anchor_positive_iou: float = 0.7
    """An anchor with at least this IoU is positive (the best one of each object is, too)."""
    anchor_negative_iou: float = 0.3
    """An anchor with less is negative."""
    anchor_best_iou: float = 0.0
    """An object's best anchor is positive only from this IoU on (MMDetection: 0.3)."""
    anchor_samples: int = 256
    """Anchors sampled an image for the RPN's loss."""
    anchor_positive_fraction: float = 0.5
    """At most this part of them positive."""
    anchors_inside_only: bool = False
    """True: anchors that cross the image's rim take no part in training, nor can they be an object's best one."""
    proposal_beta: float = 0.0
    """Smooth L1 turns from square to line at this error; 0: plain L1."""

    # --- RoI pooling --------------------------------------------------------------------------------------------
    level_rule: Literal["floor_log2", "round_log2", "round_ln"] = "floor_log2"
    """Equation 1: floor(k0 + log2(sqrt(wh) / 224)), or round, or round with the natural logarithm (fpn.pytorch)."""
    level_canonical_size: float = 224.0
    """The size that goes to `level_canonical`."""
    level_canonical: int = 4
    """k0 of equation 1."""
    level_size_relative: bool = False
    """True: sizes are counted with sides divided by (padded side - 1) and the canonical size by sqrt(padded area), as
    matterport does; off by a thousandth from plain pixels."""
    roi_sampler: Literal["align", "align_avg", "crop", "crop_and_resize", "pool"] = "align"
    """How a RoI is read from its map."""
    roi_aligned: bool = True
    """`align`: True shifts by half a cell (Detectron2 V2); False is the legacy grid with sides of at least 1 cell."""
    roi_sampling_ratio: int = 2
    """`align`: samples a bin and axis; 0: adaptive, ceil(side / bins)."""
    roi_max_pool: bool = False
    """`crop`: True reads a grid of twice the side and keeps the largest of each 2x2 (CROP_RESIZE_WITH_MAX_POOL)."""
    roi_scale: Literal["declared", "measured", "first_height"] = "declared"
    """Map cells a pixel: 1 / stride; 2 ** round(log2(map / padded size)); or map height / first image's height."""

    # --- box head -----------------------------------------------------------------------------------------------
    pooled_size: int = 7
    """Side S of a pooled RoI, in cells."""
    box_head: Literal["two_layers", "convolution", "convolution_norm"] = "two_layers"
    """Two 1024-wide layers, or an S x S convolution and a 1x1 (fpn.pytorch's RCNN_top), or those with a batch norm
    after each (matterport)."""
    background: Literal["last", "first"] = "last"
    """Index of background in the class logits of the toolkit's files; inside our heads it is always the last."""
    class_agnostic: bool = False
    """True: one box a RoI, whatever its class."""
    roi_samples: int = 512
    """RoIs sampled an image for the box head's loss."""
    roi_positive_fraction: float = 0.25
    """At most this part of them positive."""
    roi_positive_iou: float = 0.5
    """A RoI with at least this IoU is positive, with less negative."""
    box_beta: float = 0.0
    """Smooth L1 of the box branch, as `proposal_beta`."""
    head_class_choice: Literal["every", "best"] = "every"
    """`every` class of a RoI competes above the score limit, or only its `best` one (matterport)."""
    score_limit: float = 0.05
    """Detections must score more than this."""
    detection_min_size: float | None = None
    """Detections with a side not longer than this are dropped before NMS, network pixels; None: none are."""
    detection_nms: float = 0.5
    """IoU within a class above which a worse detection is dropped."""
    detection_nms_frame: Literal["network", "original"] = "network"
    """In which pixels that IoU is taken; it matters with `legacy_plus_one` only (fpn.pytorch: original)."""
    detections_limit: int = 100
    """Detections an image."""
    whole_pixels: bool = False
    """True: detections leave rounded to whole pixels, half to even, and those without an area are dropped."""
