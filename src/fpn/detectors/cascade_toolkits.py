"""How each toolkit speaks Cascade R-CNN: its Faster R-CNN, and what it changes for the cascade."""

from __future__ import annotations

from typing import Any

from fpn.detectors.dialect import CascadeDialect, TwoStageDialect
from fpn.detectors.toolkits import DETECTRON2, MMDETECTION, PAPER, VITDET

# Of Detectron2, whatever its backbone is.
_DETECTRON2 = {"loss_weights": (1.0, 1.0, 1.0), "resampled": False, "shared_gradient": "divided"}
# MMDetection writes the standard deviations of the third stage with three digits.
_THIRD = (1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067)


def _cascade(base: TwoStageDialect, source: str, **changes: Any) -> CascadeDialect:
    sections = {name: getattr(base, name) for name in type(base).model_fields}
    return CascadeDialect(**{**sections, "source": source}).changed(box_class_agnostic=True, **changes)


CASCADE_DIALECTS: dict[str, CascadeDialect] = {
    dialect.name: dialect
    for dialect in (
        _cascade(PAPER, "Cai & Vasconcelos 2018, arXiv:1712.00726; zhaoweicai/Detectron-Cascade-RCNN", box_beta=1.0),
        _cascade(
            DETECTRON2,
            "facebookresearch/detectron2 02b5c4e: configs/Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml, "
            "modeling/roi_heads/cascade_rcnn.py",
            cascade=_DETECTRON2,
            rpn_after_nms=(2000, 1000),
        ),
        _cascade(
            VITDET,
            "facebookresearch/detectron2 02b5c4e: projects/ViTDet/configs/COCO/cascade_mask_rcnn_vitdet_b_100ep.py",
            cascade=_DETECTRON2,
        ),
        _cascade(
            MMDETECTION,
            "open-mmlab/mmdetection 3.x: configs/_base_/models/cascade-{rcnn,mask-rcnn}_r50_fpn.py, "
            "models/roi_heads/cascade_roi_head.py",
            cascade={
                "weights": ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), _THIRD),
                "average": "logits",
                "mask_heads": "each_stage",
            },
            box_beta=1.0,
            rpn={"inside_only": True, "beta": 1 / 9, "after_nms": (2000, 1000)},
        ),
    )
}
