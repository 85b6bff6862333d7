"""The table of dialects: whole, documented, and every field of it at work."""

import math

import pytest
import torch
from torch import nn

from fpn.detectors.builder import assemble_two_stage, build_pyramid
from fpn.detectors.dialect import Dialect, TwoStageDialect
from fpn.detectors.recipe import FasterRCNNRecipe
from fpn.detectors.toolkits import DIALECTS, MATTERPORT, MINIMAL, PAPER, PYTORCH_FPN
from fpn.features.backbones.windowed_transformer import ViTConfig
from fpn.features.extractor import BottomUp
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.sections import options_of
from fpn.structures import Features, ImageBatch, Level, Targets

DETECTORS = [d for d in DIALECTS.values() if d not in (PYTORCH_FPN, MINIMAL)]


class TinyBackbone(BottomUp):
    """c2..c5 of 4 channels by pooling, one stride-2 step a level."""

    def __init__(self, finest: int = 2, last_stride: int = 2) -> None:
        super().__init__()
        self.levels = tuple(Level(f"c{k}", 4, 2**k if k < 5 else 16 * last_stride, k) for k in range(finest, 6))
        self.stem = nn.Conv2d(3, 4, 1)

    def forward(self, pixels: torch.Tensor) -> Features:
        x = self.stem(pixels)
        return {c.name: nn.functional.avg_pool2d(x, c.stride, ceil_mode=True) for c in self.levels}


def tiny(dialect: Dialect, **changes):
    """A detector of few channels that speaks the dialect."""
    pixels = {"mean": dialect.pixels.mean or (0.5,) * 3, "std": dialect.pixels.std or (0.25,) * 3}
    dialect = dialect.changed(pixels=pixels, neck={"channels": 6, "output_channels": 6}, roi_output_size=3, box_width=8)
    if dialect.rpn.channels is not None:
        dialect = dialect.changed(rpn_channels=8)
    dialect = dialect.changed(**changes)
    features = build_pyramid(TinyBackbone(dialect.neck.finest_level, dialect.backbone.last_stage_stride), dialect.neck)
    return assemble_two_stage(features, FasterRCNNRecipe(classes=("a", "b"), category_ids=(1, 2), dialect=dialect))


def test_every_setting_says_what_it_means():
    for option in options_of(FasterRCNNRecipe):
        assert len(option.meaning) > 3, option.path


def test_the_dialects_of_the_plan_are_there():
    names = ["paper", "torchvision", "torchvision_v2", "detectron2", "vitdet", "mmdetection", "fpn_pytorch"]
    assert list(DIALECTS) == [*names, "pytorch_fpn", "matterport", "matterport_128", "minimal"]
    assert all(DIALECTS[name].name == name and DIALECTS[name].source for name in DIALECTS)


@pytest.mark.parametrize("dialect", DETECTORS, ids=lambda d: d.name)
def test_a_detector_of_each_dialect_trains_and_detects(dialect):
    torch.manual_seed(0)
    detector = tiny(dialect, rpn_before_nms=(50, 50), rpn_after_nms=(20, 20), box_score_limit=0.0)
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
    config = dialect.neck.changed(channels=6, output_channels=6)
    features = build_pyramid(TinyBackbone(config.finest_level), config)
    maps = features(torch.rand(1, 3, 64, 64))
    assert list(maps) == [f"p{k}" for k in range(dialect.neck.finest_level, 6)]
    assert {value.shape[1] for value in maps.values()} == {6}


def fingerprint(dialect: Dialect) -> list[str]:
    """All that a dialect decides in a detector: settings of its parts and shapes of its weights."""
    detector = tiny(dialect)
    rpn, box, pyramid = detector.rpn, detector.roi_heads.box, detector.features.neck
    shapes = {name: tuple(value.shape) for name, value in detector.state_dict().items()}
    parts = [
        detector.preprocessor,
        dialect.backbone,
        (pyramid.config, pyramid.levels),
        (rpn.anchors, rpn.coder, rpn.config, rpn.sampler),
        (box.pooler, box.coder, box.config, box.sampler, box.trunk),
        shapes,
    ]
    return [repr(part) for part in parts]


OTHER = {
    "pixels.channel_order": "bgr",
    "pixels.value_range": 255.0,
    "pixels.pixel_range": (0.0, 4095.0),
    "pixels.mean": (0.1, 0.2, 0.3),
    "pixels.std": (0.1, 0.2, 0.3),
    "pixels.short_side": 500,
    "pixels.long_side": None,
    "pixels.resize": "opencv",
    "pixels.size_multiple": 64,
    "pixels.pad_before_mean": True,
    "backbone.stride_on": "1x1",
    "backbone.norm_epsilon": 1e-3,
    "backbone.conv_bias": True,
    "backbone.stem_pool": "ceil",
    "backbone.last_stage_stride": 1,
    "neck.top_down": "bilinear",
    "neck.lateral": "top",
    "neck.extra_relu": False,
    "neck.smoothed": "all_but_top",
    "neck.smooth_before_merge": True,
    "neck.top_kernel": 3,
    "neck.bias": False,
    "neck.extra_levels": "convolutions_on_p5",
    "neck.finest_level": 3,
    "neck.norm": "group",
    "neck.norm_epsilon": 1e-3,
    "neck.norm_on_lateral": False,
    "neck.relu": True,
    "neck.repeats": 2,
    "neck.fusion": "sum",
    "anchors.sizes": ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,)),
    "anchors.ratios": (1.0,),
    "anchors.ratio": "width/height",
    "anchors.offset": 0.5,
    "anchors.rounded": True,
    "anchors.digits": 1,
    "anchors.order": "ratio_major",
    "anchors.strides": "measured",
    "rpn.weights": (10.0, 10.0, 5.0, 5.0),
    "box.weights": (1.0, 1.0, 1.0, 1.0),
    "coder.clamp": None,
    "coder.clamp_both": True,
    "coder.legacy_plus_one": True,
    "coder.inclusive_corners": True,
    "rpn.objectness": "softmax",
    "rpn.channels": 7,
    "rpn.scope": "all",
    "rpn.before_nms": (10, 20),
    "rpn.after_nms": (10, 20),
    "rpn.nms": 0.5,
    "rpn.min_size": None,
    "rpn.min_score": 0.3,
    "rpn.padded": True,
    "rpn.sampling.positive_iou": 0.6,
    "rpn.sampling.negative_iou": 0.2,
    "rpn.sampling.best_iou": 0.3,
    "rpn.sampling.keep_best": False,
    "rpn.sampling.count": 64,
    "rpn.sampling.positive_fraction": 0.25,
    "rpn.inside_only": True,
    "rpn.beta": 1.0,
    "rpn.num_convolutions": 2,
    "rpn.loss": "giou",
    "rpn.loss_weight": 2.0,
    "rpn.normalizer": "nominal",
    "rpn.valid_multiple": 32,
    "rpn.sampling.best_owns": True,
    "roi.level_rule": "round_ln",
    "roi.canonical_size": 112.0,
    "roi.canonical_level": 5,
    "roi.coarsest_level": 3,
    "roi.size_relative": True,
    "roi.sampler": "pool",
    "roi.aligned": False,
    "roi.sampling_ratio": 0,
    "roi.max_pool": True,
    "roi.scale": "first_height",
    "box.head": "convolution",
    "box.class_agnostic": True,
    "box.sampling.count": 64,
    "box.sampling.positive_fraction": 0.5,
    "box.sampling.positive_iou": 0.6,
    "box.sampling.negative_iou": 0.4,
    "box.sampling.keep_best": True,
    "box.sampling.best_iou": 0.1,
    "box.beta": 1.0,
    "box.loss": "giou",
    "box.loss_weight": 2.0,
    "box.num_convolutions": 2,
    "box.convolution_channels": 4,
    "box.norm": "group",
    "box.suppression": "linear",
    "box.nms_sigma": 0.3,
    "box.nms_lowest": 0.01,
    "box.sampling.best_owns": True,
    "box.choice": "best",
    "box.score_limit": 0.3,
    "box.min_size": 1.0,
    "box.nms": 0.3,
    "box.nms_frame": "original",
    "box.limit": 20,
    "pixels.whole_pixels": True,
}
# Widths are overwritten in `tiny`; `background` says how a file is read: see tests/interop; other counts of levels need
# other anchors: see tests/features/necks; of vitdet alone: see tests/features/backbones.
ELSEWHERE = {
    "name",
    "source",
    "neck.channels",
    "neck.output_channels",
    "neck.num_extra",
    "backbone.split_last_stage",
    "neck.emitted",
    "roi.output_size",
    "box.width",
    "box.background",
    *(f"backbone.vit.{name}" for name in ViTConfig.model_fields),
}


def test_no_field_is_forgotten_below():
    assert {option.path for option in options_of(TwoStageDialect)} == OTHER.keys() | ELSEWHERE


@pytest.mark.parametrize("field", OTHER)
def test_a_field_reaches_the_detector(field):
    base, changed = PAPER, {field: OTHER[field]}
    if field in ("neck.finest_level", "neck.extra_levels"):
        changed["anchors.sizes"] = ((32.0,),) * (4 if field == "neck.finest_level" else 6)
    if field == "neck.smooth_before_merge":
        base = base.changed(neck_smoothed="all_but_top")
    assert fingerprint(base.changed(**changed)) != fingerprint(base)


def test_widths_reach_the_weights():
    wide = MATTERPORT.changed(neck_channels=6, neck_output_channels=10)
    pyramid = build_pyramid(TinyBackbone(), wide.neck).neck
    assert pyramid.laterals["c2"].weight.shape == (6, 4, 1, 1)
    assert pyramid.smooths["p2"].weight.shape == (10, 6, 3, 3)
    assert tiny(PAPER, roi_output_size=5).roi_heads.box.trunk[1].weight.shape == (8, 6 * 25)


def test_a_dialect_without_statistics_needs_a_backbones():
    with pytest.raises(ValueError, match="left to the backbone"):
        Preprocessor(PAPER.pixels)
