"""Graphs, run by PyTorch, find what their detectors find."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import fpn
from fpn.detectors import Detector
from fpn.detectors.prediction import enter
from fpn.errors import ConfigError
from fpn.export.graph import DetectorGraph
from fpn.inference.optimize import optimize

TINY = {
    "backbone": "tf_efficientnet_lite0",
    "weights": None,
    "short_side": 64,
    "neck_channels": 8,
    "neck_output_channels": 8,
}
TWO_STAGES = {"head_width": 16, "box_score_limit": 0.1, "box_limit": 10, "rpn_after_nms": (50, 50)}


def _stirred(detector: Detector) -> Detector:
    """It finds something everywhere, and different things."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in detector.named_parameters():
            last = name.rpartition(".")[0].rpartition(".")[2]
            if last in ("scores", "objectness", "quality", "logits") and weight.ndim > 1:
                weight.normal_(0, 0.1 if weight.shape[2:] == (3, 3) else 1.0)  # dense heads' would all be sure
            if "tower" in name and weight.ndim == 4:
                weight.normal_(0, 0.17)  # 8 channels of 3 x 3 keep their size, so that no two scores are equal
            if name == "head.scores.bias":
                weight.zero_()
            if last == "deltas" and weight.ndim > 1:
                weight.normal_(0, 0.05)
    return detector.eval()


def _same(detector: Detector, *, empty: bool = False) -> None:
    images = [Image.fromarray(_noise(seed)) for seed in range(3)]
    batch = enter(detector, [detector.preprocessor.prepare(image) for image in images])
    with torch.no_grad():
        wanted = detector.detect(batch)
        boxes, scores, labels, counts, *more = DetectorGraph(detector).eval()(batch.pixels, batch.sizes)
    assert counts.tolist() == [len(each) for each in wanted]
    assert empty or counts.sum() > 0
    for number, each in enumerate(wanted):
        found = slice(0, len(each))
        torch.testing.assert_close(boxes[number, found], each.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(scores[number, found], each.scores, rtol=0, atol=1e-5)
        assert torch.equal(labels[number, found], each.labels)
        assert (labels[number, len(each) :] == -1).all()
        own = [x for x in (each.mask_probabilities, each.keypoints) if x is not None]
        assert len(own) == len(more)
        for values, right in zip(more, own, strict=True):
            torch.testing.assert_close(values[number, found], right, rtol=0, atol=1e-3)


def _noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64 - seed, 90 + seed, 3), dtype=np.uint8)


@pytest.mark.parametrize("suppression", ["hard", "gaussian", "linear"])
def test_two_stages(suppression: str) -> None:
    torch.manual_seed(0)
    _same(_stirred(fpn.faster_rcnn(classes=["cell", "platelet"], box_suppression=suppression, **TINY, **TWO_STAGES)))


def test_two_stages_that_find_nothing() -> None:
    detector = fpn.faster_rcnn(classes=["cell"], **TINY, **{**TWO_STAGES, "box_score_limit": 0.99})
    _same(detector.eval(), empty=True)


@pytest.mark.parametrize("dialect", ["torchvision", "detectron2", "mmdetection", "pytorch_fpn"])
def test_other_toolkits_conventions(dialect: str) -> None:
    torch.manual_seed(0)
    plain = {"backbone_stride_on": "3x3"}  # a ResNet's
    _same(_stirred(fpn.faster_rcnn(classes=["cell", "platelet"], dialect=dialect, **TINY, **TWO_STAGES, **plain)))


@pytest.mark.parametrize("kind", ["mask_rcnn", "keypoint_rcnn", "cascade_rcnn"])
def test_further_heads(kind: str) -> None:
    torch.manual_seed(0)
    own = {"skeleton": ["head", "tail"]} if kind == "keypoint_rcnn" else {}
    narrow = {"mask_rcnn": {"mask_channels": 8}, "keypoint_rcnn": {"keypoint_channels": 8}}.get(kind, {})
    _same(_stirred(getattr(fpn, kind)(classes=["cell", "platelet"], **own, **TINY, **TWO_STAGES, **narrow)))


@pytest.mark.parametrize(
    ("kind", "dialect"),
    [
        ("retinanet", "paper"),
        ("retinanet", "torchvision"),
        ("retinanet", "mmdetection"),
        ("fcos", "paper"),
        ("fcos", "detectron2"),
        ("fcos", "mmdetection"),
        ("atss", "paper"),
        ("atss", "mmdetection"),
    ],
)
def test_dense_heads(kind: str, dialect: str) -> None:
    torch.manual_seed(0)
    plain = {"backbone_stride_on": "3x3"}  # a ResNet's
    # Where centre-ness is a factor of the score few would be above 0.5.
    limits = {"dense_score_limit": 0.5 if (kind, dialect) != ("fcos", "detectron2") else 0.3, "dense_limit": 10}
    _same(_stirred(getattr(fpn, kind)(classes=["cell", "platelet"], dialect=dialect, **TINY, **limits, **plain)))


def test_what_has_no_graph_is_refused(small) -> None:
    with pytest.raises(ConfigError, match="an optimized detector can't be exported"):
        DetectorGraph(optimize(small))
    with pytest.raises(ConfigError, match=r"roi\.sampler is 'crop': only RoIAlign"):
        DetectorGraph(fpn.faster_rcnn(classes=["cell"], roi_sampler="crop", **TINY))
    with pytest.raises(ConfigError, match=r"pixels\.size_multiple 1: is no multiple of the backbone's stride 32"):
        DetectorGraph(fpn.faster_rcnn(classes=["cell"], pixels_size_multiple=1, **TINY))
    with pytest.raises(ConfigError, match="a segment_proposals can't be exported"):
        DetectorGraph(fpn.segment_proposals(**TINY))
