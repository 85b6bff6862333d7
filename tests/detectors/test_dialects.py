"""The table of dialects: whole, documented, and every field of it at work."""

import ast
import inspect
import math
from dataclasses import fields, replace

import pytest
import torch
from torch import nn

from fpn.detectors import toolkits as module
from fpn.detectors.builder import assemble_faster_rcnn, build_pyramid, resnet_variant
from fpn.detectors.dialect import Dialect
from fpn.detectors.toolkits import DIALECTS, MATTERPORT, MINIMAL, PAPER, PYTORCH_FPN
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Classes, Features, ImageBatch, Level, Targets

DETECTORS = [d for d in DIALECTS.values() if d not in (PYTORCH_FPN, MINIMAL)]


class TinyBody(nn.Module):
    """c2..c5 of 4 channels by pooling, one stride-2 step a level."""

    def __init__(self, finest: int = 2, last_stride: int = 2) -> None:
        super().__init__()
        self.levels = tuple(Level(f"c{k}", 4, 2**k if k < 5 else 16 * last_stride) for k in range(finest, 6))
        self.stem = nn.Conv2d(3, 4, 1)

    def forward(self, pixels: torch.Tensor) -> Features:
        x = self.stem(pixels)
        return {c.name: nn.functional.avg_pool2d(x, c.stride, ceil_mode=True) for c in self.levels}


def tiny(dialect: Dialect, **changes):
    """A detector of few channels that speaks the dialect."""
    small = {"pyramid_channels": 6, "output_channels": 6, "pooled_size": 3}
    if dialect.proposal_channels is not None:
        small["proposal_channels"] = 8
    dialect = replace(dialect, mean=dialect.mean or (0.5,) * 3, std=dialect.std or (0.25,) * 3)
    dialect = replace(dialect, **{**small, **changes})
    features = build_pyramid(TinyBody(dialect.finest_level, dialect.last_stage_stride), dialect)
    return assemble_faster_rcnn(features, Classes.of(["a", "b"]), dialect, {"head_width": 8})


def test_every_field_says_what_it_means():
    [body] = [node for node in ast.parse(inspect.getsource(module)).body if getattr(node, "name", "") == "Dialect"]
    for field, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            assert documented, f"{field.target.id} has no docstring"


def test_the_dialects_of_the_plan_are_there():
    names = ["paper", "torchvision", "detectron2", "mmdetection", "fpn_pytorch", "pytorch_fpn", "matterport"]
    assert list(DIALECTS) == [*names, "matterport_128", "minimal"]
    assert all(DIALECTS[name].name == name and DIALECTS[name].source for name in DIALECTS)


@pytest.mark.parametrize("dialect", DETECTORS, ids=lambda d: d.name)
def test_a_detector_of_each_dialect_trains_and_detects(dialect):
    torch.manual_seed(0)
    detector = tiny(dialect, proposals_before_nms=(50, 50), proposals_after_nms=(20, 20), score_limit=0.0)
    images = ImageBatch(torch.rand(2, 3, 64, 64), torch.tensor([[64, 64], [60, 50]]))
    targets = [Targets(torch.tensor([[4.0, 6.0, 40.0, 44.0]]), torch.tensor([1])), Targets.empty()]
    losses = detector.losses(images, targets)
    losses.total.backward()
    assert math.isfinite(losses.total.item())
    detector.eval()
    found = detector.detect(images)
    assert len(found) == 2
    assert found[1].boxes[:, 2].max() <= 50


@pytest.mark.parametrize("dialect", [PYTORCH_FPN, MINIMAL], ids=lambda d: d.name)
def test_a_pyramid_of_the_others(dialect):
    features = build_pyramid(TinyBody(dialect.finest_level), replace(dialect, pyramid_channels=6, output_channels=6))
    maps = features(torch.rand(1, 3, 64, 64))
    assert list(maps) == [f"p{k}" for k in range(dialect.finest_level, 6)]
    assert {value.shape[1] for value in maps.values()} == {6}


def fingerprint(dialect: Dialect) -> list[str]:
    """All that a dialect decides in a detector: settings of its parts and shapes of its weights."""
    detector = tiny(dialect)
    proposal, box, pyramid = detector.proposal, detector.box, detector.features
    shapes = {name: tuple(value.shape) for name, value in detector.state_dict().items()}
    parts = [
        detector.preprocessor,
        resnet_variant(dialect),
        (pyramid.top_down, pyramid.smooth_before_merge, pyramid.extra_levels, pyramid.levels),
        (proposal.anchors, proposal.coding, proposal.selection, proposal.sampling),
        (proposal.mode, proposal.inside_only, proposal.beta),
        (box.pooler, box.coding, box.selection, box.sampling, box.class_agnostic, box.beta, box.trunk),
        shapes,
    ]
    return [repr(part) for part in parts]


OTHER = {
    "channel_order": "bgr",
    "value_range": 255.0,
    "mean": (0.1, 0.2, 0.3),
    "std": (0.1, 0.2, 0.3),
    "short_side": 500,
    "long_side": None,
    "resize": "opencv",
    "size_multiple": 64,
    "pad_before_mean": True,
    "bottleneck_stride": "1x1",
    "norm_epsilon": 1e-3,
    "backbone_bias": True,
    "stem_pool": "ceil",
    "last_stage_stride": 1,
    "top_down": "bilinear",
    "smoothed": "all_but_top",
    "smooth_before_merge": True,
    "top_kernel": 3,
    "pyramid_bias": False,
    "extra_levels": "convolutions_on_p5",
    "finest_level": 3,
    "anchor_sizes": ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,)),
    "anchor_ratios": (1.0,),
    "anchor_ratio": "width/height",
    "anchor_offset": 0.5,
    "anchor_rounding": True,
    "anchor_order": "ratio_major",
    "anchor_strides": "measured",
    "proposal_weights": (10.0, 10.0, 5.0, 5.0),
    "box_weights": (1.0, 1.0, 1.0, 1.0),
    "delta_clamp": None,
    "delta_clamp_both": True,
    "legacy_plus_one": True,
    "inclusive_corners": True,
    "objectness": "softmax",
    "proposal_channels": 7,
    "proposal_scope": "all",
    "proposals_before_nms": (10, 20),
    "proposals_after_nms": (10, 20),
    "proposal_nms": 0.5,
    "proposal_min_size": None,
    "pad_proposals": True,
    "anchor_positive_iou": 0.6,
    "anchor_negative_iou": 0.2,
    "anchor_best_iou": 0.3,
    "anchor_samples": 64,
    "anchor_positive_fraction": 0.25,
    "anchors_inside_only": True,
    "proposal_beta": 1.0,
    "level_rule": "round_ln",
    "level_canonical_size": 112.0,
    "level_canonical": 5,
    "level_size_relative": True,
    "roi_sampler": "pool",
    "roi_aligned": False,
    "roi_sampling_ratio": 0,
    "roi_max_pool": True,
    "roi_scale": "first_height",
    "box_head": "convolution",
    "class_agnostic": True,
    "roi_samples": 64,
    "roi_positive_fraction": 0.5,
    "roi_positive_iou": 0.6,
    "box_beta": 1.0,
    "head_class_choice": "best",
    "score_limit": 0.3,
    "detection_min_size": 1.0,
    "detection_nms": 0.3,
    "detection_nms_frame": "original",
    "detections_limit": 20,
    "whole_pixels": True,
}
# Widths are overwritten in `tiny`; `background` says how a file is read: see tests/interop.
ELSEWHERE = {"name", "source", "pyramid_channels", "output_channels", "pooled_size", "background"}


def test_no_field_is_forgotten_below():
    assert {field.name for field in fields(Dialect)} == OTHER.keys() | ELSEWHERE


@pytest.mark.parametrize("field", OTHER)
def test_a_field_reaches_the_detector(field):
    base = replace(PAPER, extra_levels="subsample")
    changed = {field: OTHER[field]}
    if field in ("finest_level", "extra_levels"):
        changed["anchor_sizes"] = ((32.0,),) * (4 if field == "finest_level" else 6)
    if field == "smooth_before_merge":
        base = replace(base, smoothed="all_but_top")
    assert fingerprint(replace(base, **changed)) != fingerprint(base)


def test_widths_reach_the_weights():
    wide = replace(MATTERPORT, pyramid_channels=6, output_channels=10)
    pyramid = build_pyramid(TinyBody(), wide)
    assert pyramid.laterals["c2"].weight.shape == (6, 4, 1, 1)
    assert pyramid.smooths["p2"].weight.shape == (10, 6, 3, 3)
    assert tiny(PAPER, pooled_size=5).box.trunk[1].weight.shape == (8, 6 * 25)


def test_a_dialect_without_statistics_needs_a_backbones():
    with pytest.raises(ValueError, match="leaves mean and std to the backbone"):
        Preprocessor.of(PAPER)
