"""How each toolkit speaks RetinaNet, FCOS and ATSS. Pixels and boxes are those of its Faster R-CNN; see `toolkits`."""

from __future__ import annotations

from fpn.detectors.dialect import ATSSDialect, FCOSDialect, RetinaNetDialect
from fpn.detectors.toolkits import DETECTRON2, MMDETECTION, TORCHVISION
from fpn.features.backbones.resnet_variants import BackboneConfig
from fpn.features.necks.config import NeckConfig
from fpn.heads.anchors import AnchorsConfig
from fpn.heads.atss import ATSSConfig
from fpn.heads.box_coder import CoderConfig
from fpn.heads.fcos import FCOSConfig
from fpn.heads.retinanet import RetinaNetConfig

# P3 to P7, the last two by convolutions.
_ON_C5 = NeckConfig(extra_levels="convolutions_on_c5", finest_level=3)
_ON_P5 = NeckConfig(extra_levels="convolutions_on_p5", finest_level=3)
_BASES = (32, 64, 128, 256, 512)
_THIRDS = tuple((float(size), size * 2 ** (1 / 3), size * 2 ** (2 / 3)) for size in _BASES)
_ONE_A_LEVEL = AnchorsConfig(sizes=tuple((float(2 * size),) for size in _BASES), ratios=(1.0,))

RETINANET_DIALECTS: dict[str, RetinaNetDialect] = {
    dialect.name: dialect
    for dialect in (
        RetinaNetDialect(
            # One departure: an object that no anchor fits has its best one.
            name="paper",
            source="Lin et al. 2017, arXiv:1708.02002, sections 4 and 5; Detectron's smooth L1",
            neck=_ON_C5,
            anchors=AnchorsConfig(sizes=_THIRDS),
            dense=RetinaNetConfig(beta=1 / 9),
        ),
        RetinaNetDialect(
            name="torchvision",
            source="torchvision 0.29: models/detection/retinanet.py, retinanet_resnet50_fpn",
            pixels=TORCHVISION.pixels,
            neck=_ON_P5,
            anchors=TORCHVISION.anchors.changed(sizes=tuple(tuple(map(float, map(int, each))) for each in _THIRDS)),
            dense=RetinaNetConfig(normalizer="image", drop_empty=False, limit=300),
        ),
        RetinaNetDialect(
            name="torchvision_v2",
            source="torchvision 0.29: models/detection/retinanet.py, retinanet_resnet50_fpn_v2",
            pixels=TORCHVISION.pixels,
            neck=_ON_C5,
            anchors=TORCHVISION.anchors.changed(sizes=tuple(tuple(map(float, map(int, each))) for each in _THIRDS)),
            dense=RetinaNetConfig(
                norm="group", norm_bias=False, normalizer="image", drop_empty=False, limit=300, box_loss="giou"
            ),
        ),
        RetinaNetDialect(
            name="detectron2",
            source="facebookresearch/detectron2 02b5c4e: configs/Base-RetinaNet.yaml, modeling/meta_arch/retinanet.py",
            pixels=DETECTRON2.pixels,
            backbone=DETECTRON2.backbone,
            neck=_ON_C5,
            anchors=AnchorsConfig(sizes=_THIRDS),
            dense=RetinaNetConfig(normalizer="ema", normalizer_start=100.0, clipped="last"),
        ),
        RetinaNetDialect(
            name="mmdetection",
            source="open-mmlab/mmdetection 3.3.0: configs/_base_/models/retinanet_r50_fpn.py, models/dense_heads",
            pixels=MMDETECTION.pixels,
            neck=_ON_C5.changed(extra_relu=False),
            anchors=AnchorsConfig(sizes=_THIRDS, order="ratio_major"),
            coder=MMDETECTION.coder,
            dense=RetinaNetConfig(normalizer="images", best_owns=True, padding=32),
        ),
    )
}

FCOS_DIALECTS: dict[str, FCOSDialect] = {
    dialect.name: dialect
    for dialect in (
        FCOSDialect(
            name="paper",
            source="Tian et al., arXiv:2006.09214: the second form, with centre sampling, normalised sides and GIoU",
            neck=_ON_P5,
            dense=FCOSConfig(norm="group", nms=0.6, scaled=True, box_weighted=True),
        ),
        FCOSDialect(
            name="torchvision",
            source="torchvision 0.29: models/detection/fcos.py",
            pixels=TORCHVISION.pixels,
            neck=_ON_P5,
            dense=FCOSConfig(norm="group", offset=0.0, strides="measured", score_limit=0.2, nms=0.6, drop_empty=False),
        ),
        FCOSDialect(
            name="detectron2",
            source="facebookresearch/detectron2 02b5c4e: configs/common/models/fcos.py, modeling/meta_arch/fcos.py",
            pixels=DETECTRON2.pixels,
            backbone=DETECTRON2.backbone,
            neck=_ON_P5,
            dense=FCOSConfig(
                norm="group", normalizer="ema", normalizer_start=300.0, score_limit=0.2, nms=0.6, clipped="last"
            ),
        ),
        FCOSDialect(
            name="mmdetection",
            source="open-mmlab/mmdetection 3.3.0: configs/fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py, fcos_head.py",
            pixels=MMDETECTION.pixels.changed(
                channel_order="bgr", mean=(102.9801, 115.9465, 122.7717), std=(1.0, 1.0, 1.0)
            ),
            backbone=BackboneConfig(stride_on="1x1"),
            neck=_ON_P5,
            dense=FCOSConfig(
                norm="group",
                norm_bias=False,
                sides="exp",
                scaled=True,
                radius=None,
                range_ends="closed",
                quality="classes",
                scoring="product",
                box_loss="iou",
                box_weighted=True,
            ),
        ),
    )
}

ATSS_DIALECTS: dict[str, ATSSDialect] = {
    dialect.name: dialect
    for dialect in (
        ATSSDialect(
            name="paper",
            source="Zhang et al. 2020, arXiv:1912.02424",
            neck=_ON_P5,
            anchors=_ONE_A_LEVEL,
            dense=ATSSConfig(norm="group", nms=0.6),
        ),
        ATSSDialect(
            name="mmdetection",
            source="open-mmlab/mmdetection 3.3.0: configs/atss/atss_r50_fpn_1x_coco.py, atss_head.py, atss_assigner.py",
            pixels=MMDETECTION.pixels,
            neck=_ON_P5.changed(extra_relu=False),
            anchors=_ONE_A_LEVEL,
            coder=CoderConfig(clamp_both=True),
            dense=ATSSConfig(norm="group", norm_bias=False, normalizer="images", nms=0.6, padding=32),
        ),
    )
}
