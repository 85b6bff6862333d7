"""Recipes to detectors: every part gets its own section here, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from fpn.detectors.detector import Detector
from fpn.detectors.dialect import (
    AnchorDialect,
    CascadeDialect,
    CascadeMaskDialect,
    KeypointDialect,
    MaskDialect,
    TwoStageDialect,
)
from fpn.detectors.one_stage import OneStageDetector
from fpn.detectors.recipe import (
    ATSSRecipe,
    CascadeMaskRCNNRecipe,
    CascadeRCNNRecipe,
    DenseRecipe,
    FasterRCNNRecipe,
    FCOSRecipe,
    KeypointRCNNRecipe,
    MaskRCNNRecipe,
    Recipe,
    RetinaNetRecipe,
    SegmentProposalsRecipe,
    TwoStageRecipe,
)
from fpn.detectors.segment_proposer import SegmentProposer
from fpn.detectors.two_stage import TwoStageDetector
from fpn.errors import ConfigError
from fpn.features.backbones.backbone import make_backbone, refuse_unfit_backbone
from fpn.features.backbones.weights import refuse_other_offline
from fpn.features.extractor import BottomUp, Extractor, FeatureExtractor
from fpn.features.necks.config import NeckConfig
from fpn.features.necks.designs import DESIGNS, Design, named_design
from fpn.features.necks.fpn import FeaturePyramid
from fpn.heads.anchors import AnchorsConfig
from fpn.heads.atss import ATSSHead
from fpn.heads.box import BoxHead, ConvolutionsTrunk, ConvolutionTrunk, FlatTrunk, TwoLayerTrunk
from fpn.heads.cascade import CascadeHead
from fpn.heads.cascade_masks import MaskStages
from fpn.heads.dense import DenseHead
from fpn.heads.fcos import FCOSHead
from fpn.heads.keypoint import KeypointHead
from fpn.heads.mask import MaskHead
from fpn.heads.retinanet import RetinaNetHead
from fpn.heads.roi_heads import RoIHeads
from fpn.heads.roi_pooler import RoIPooler
from fpn.heads.rpn import RPN
from fpn.heads.segments import SegmentHead
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Level

R = TypeVar("R", bound=Recipe)


def build_detector(recipe: Recipe, *, weights: str | Path | None = None) -> Detector:
    """A detector with fresh heads from its recipe.

    Args:
        recipe: what it is made of.
        weights: of the backbone: "imagenet" (timm's hub), "offline" (the `offline` extra), a file, or None: random.

    Raises:
        ConfigError: the parts do not fit each other, or there is no such backbone.
        ModelFileError, DataNotFoundError, MissingExtraError: the weights can't be had.
    """
    return BUILDERS[type(recipe)](recipe, weights)


def build_two_stage(recipe: TwoStageRecipe, weights: str | Path | None = None) -> TwoStageDetector:
    """See `build_detector`."""
    return assemble_two_stage(*prepare_features(recipe, weights))


def build_one_stage(recipe: DenseRecipe, weights: str | Path | None = None) -> OneStageDetector:
    """See `build_detector`."""
    features, recipe = prepare_features(recipe, weights)
    return OneStageDetector(
        features=features,
        head=build_dense_head(features.levels, recipe),
        classes=recipe.found,
        preprocessor=Preprocessor(recipe.dialect.pixels),
        recipe=recipe,
    )


def build_segment_proposer(recipe: SegmentProposalsRecipe, weights: str | Path | None = None) -> SegmentProposer:
    """See `build_detector`."""
    features, recipe = prepare_features(recipe, weights)
    return SegmentProposer(
        features=features,
        head=SegmentHead(levels=features.levels, config=recipe.dialect.segments),
        classes=recipe.found,
        preprocessor=Preprocessor(recipe.dialect.pixels),
        recipe=recipe,
    )


BUILDERS: dict[type[Recipe], Callable[[Any, str | Path | None], Detector]] = {
    FasterRCNNRecipe: build_two_stage,
    CascadeRCNNRecipe: build_two_stage,
    MaskRCNNRecipe: build_two_stage,
    CascadeMaskRCNNRecipe: build_two_stage,
    KeypointRCNNRecipe: build_two_stage,
    RetinaNetRecipe: build_one_stage,
    FCOSRecipe: build_one_stage,
    ATSSRecipe: build_one_stage,
    SegmentProposalsRecipe: build_segment_proposer,
}


def build_dense_head(levels: tuple[Level, ...], recipe: DenseRecipe) -> DenseHead:
    """The head that a recipe describes, on any levels.

    Raises:
        ConfigError: its anchors are not those of so many levels.
    """
    num_classes = len(recipe.classes)
    if isinstance(recipe, FCOSRecipe):
        return FCOSHead(levels=levels, num_classes=num_classes, config=recipe.dialect.dense)
    assert isinstance(recipe, RetinaNetRecipe | ATSSRecipe), type(recipe)
    dialect = recipe.dialect
    anchors = anchors_on(levels, dialect)
    refuse_other_levels(anchors, levels)
    shared: dict[str, Any] = {"levels": levels, "num_classes": num_classes, "anchors": anchors, "coder": dialect.coder}
    if isinstance(recipe, ATSSRecipe):
        return ATSSHead(**shared, config=recipe.dialect.dense)
    return RetinaNetHead(**shared, config=recipe.dialect.dense)


def anchors_on(levels: tuple[Level, ...], dialect: AnchorDialect) -> AnchorsConfig:
    """The dialect's anchors, those of all levels in each cell where there is a single one."""
    sizes = dialect.anchors.sizes
    if len(levels) != 1 or len(sizes) == 1:
        return dialect.anchors
    return dialect.anchors.changed(sizes=(tuple(chain.from_iterable(sizes)),))


def refuse_unfit_parts(backbone: str | None, neck: str, config: NeckConfig, weights: str | Path | None = None) -> None:
    """Stop at names that no detector can be made with, before data are read for it.

    Args:
        backbone, neck, weights: as presets take them; None: not chosen yet.
        config: of the neck, by the dialect.

    Raises:
        ConfigError: there is no such backbone or neck, or one does not have what the other reads.
    """
    design = named_design(neck)
    if backbone is not None:
        refuse_unfit_backbone(backbone, design.reads(config.finest_level))
        if weights == "offline":
            refuse_other_offline(backbone)


def prepare_features(recipe: R, weights: str | Path | None) -> tuple[Extractor, R]:
    """What every kind has: backbone and neck, and the recipe with the pixels that this backbone was trained on."""
    design, dialect = DESIGNS[recipe.neck], recipe.dialect
    backbone = make_backbone(
        recipe.backbone,
        weights=None if weights == "none" else weights,
        frozen_stages=recipe.frozen_stages,
        frozen_norm=recipe.frozen_norm,
        config=dialect.backbone,
        out=design.reads(dialect.neck.finest_level),
    )
    seen = {"mean": dialect.pixels.mean or backbone.pixel_mean, "std": dialect.pixels.std or backbone.pixel_std}
    features = build_features(backbone, design, dialect.neck)
    return features, recipe.changed(dialect=dialect.changed(pixels=seen))


def build_features(backbone: BottomUp, design: Design, config: NeckConfig) -> Extractor:
    """A neck with the dialect's settings, or one of the paper's rivals in the same width."""
    return design.build(backbone, config)


def build_pyramid(backbone: BottomUp, config: NeckConfig) -> FeatureExtractor:
    """The pyramid that a section describes, on any bottom-up path."""
    return FeatureExtractor(backbone=backbone, neck=FeaturePyramid(backbone.levels, config=config))


def assemble_two_stage(features: Extractor, recipe: TwoStageRecipe) -> TwoStageDetector:
    """Heads after a recipe on any features."""
    levels = features.levels
    dialect = adapt_to_levels(recipe.dialect, levels)
    return TwoStageDetector(
        features=features,
        rpn=build_rpn(levels, dialect),
        roi_heads=build_roi_heads(levels, recipe),
        classes=recipe.found,
        preprocessor=Preprocessor(dialect.pixels),
        recipe=recipe,
    )


def adapt_to_levels(dialect: TwoStageDialect, levels: tuple[Level, ...]) -> TwoStageDialect:
    """On a single map, the anchors of all sizes stand in each cell (paper, section 5.1.1: 5 scales x 3 ratios).

    As many candidates then enter its NMS as from all levels of a pyramid together.
    """
    sizes = dialect.anchors.sizes
    if len(levels) != 1 or len(sizes) == 1:
        return dialect
    times = len(sizes) if dialect.rpn.scope == "level" else 1
    before_nms = tuple(count * times for count in dialect.rpn.before_nms)
    return dialect.changed(anchors=anchors_on(levels, dialect), rpn_before_nms=before_nms)


def build_rpn(levels: tuple[Level, ...], dialect: TwoStageDialect) -> RPN:
    """The region proposal network that a dialect describes, on any levels."""
    refuse_other_levels(dialect.anchors, levels)
    return RPN(levels=levels, anchors=dialect.anchors, coder=dialect.coder, config=dialect.rpn)


def refuse_other_levels(anchors: AnchorsConfig, levels: tuple[Level, ...]) -> None:
    """Anchors are laid level by level.

    Raises:
        ConfigError: sizes or strides are not those of so many levels.
    """
    counts = [len(sizes) for sizes in anchors.sizes]
    names = ", ".join(level.name for level in levels)
    if len(counts) != len(levels) or len(set(counts)) != 1:
        raise ConfigError(
            f"anchors.sizes has {len(counts)} entries with {', '.join(map(str, counts))} sizes, for the {len(levels)} "
            f"levels {names}. Give one entry a level, each with as many sizes."
        )
    if not isinstance(anchors.strides, str) and len(anchors.strides) != len(levels):
        raise ConfigError(
            f"anchors.strides has {len(anchors.strides)} entries, for the {len(levels)} levels {names}. "
            "Give one a level."
        )


def build_roi_heads(levels: tuple[Level, ...], recipe: TwoStageRecipe) -> RoIHeads:
    """The heads on proposals that a recipe asks for."""
    num_classes = len(recipe.classes)
    if isinstance(recipe, CascadeRCNNRecipe):
        return RoIHeads(box=build_cascade(levels, num_classes, recipe.dialect))
    if isinstance(recipe, CascadeMaskRCNNRecipe):
        cascade = build_cascade(levels, num_classes, recipe.dialect)
        return RoIHeads(box=cascade, mask=build_cascade_masks(levels, num_classes, recipe.dialect))
    box = build_box_head(levels, num_classes, recipe.dialect)
    match recipe:
        case FasterRCNNRecipe():
            return RoIHeads(box=box)
        case MaskRCNNRecipe():
            return RoIHeads(box=box, mask=build_mask_head(levels, num_classes, recipe.dialect))
        case KeypointRCNNRecipe():
            return RoIHeads(box=box, keypoint=build_keypoint_head(levels, len(recipe.keypoints), recipe.dialect))
    raise ConfigError(f"kind {recipe.kind!r}: has no heads on proposals")


def build_cascade(levels: tuple[Level, ...], num_classes: int, dialect: CascadeDialect) -> CascadeHead:
    """The box heads that a dialect's cascade describes, on any levels."""
    stages = [
        build_box_head(levels, num_classes, dialect.changed(box=dialect.cascade.stage(dialect.box, number)))
        for number in range(len(dialect.cascade.ious))
    ]
    return CascadeHead(stages=stages, config=dialect.cascade)


def build_box_head(levels: tuple[Level, ...], num_classes: int, dialect: TwoStageDialect) -> BoxHead:
    """The box head that a dialect describes, on any levels."""
    pooler = build_pooler(levels, dialect, dialect.roi.output_size)
    return BoxHead(
        pooler=pooler,
        trunk=_trunk(pooler.levels[0].channels, dialect),
        num_classes=num_classes,
        coder=dialect.coder,
        config=dialect.box,
    )


def build_mask_head(levels: tuple[Level, ...], num_classes: int, dialect: MaskDialect) -> MaskHead:
    """The mask head that a dialect describes, on any levels."""
    return MaskHead(
        pooler=build_pooler(levels, dialect, dialect.mask.roi_size),
        num_classes=num_classes,
        config=dialect.mask,
        norm_epsilon=dialect.backbone.norm_epsilon,
        bias=dialect.backbone.conv_bias,
    )


def build_cascade_masks(
    levels: tuple[Level, ...], num_classes: int, dialect: CascadeMaskDialect
) -> MaskHead | MaskStages:
    """The mask head, or the mask heads, that a dialect's cascade describes, on any levels."""
    if dialect.cascade.mask_heads == "one":
        return build_mask_head(levels, num_classes, dialect)
    weights = dialect.cascade.loss_weights
    return MaskStages(stages=[build_mask_head(levels, num_classes, dialect) for _ in weights], loss_weights=weights)


def build_keypoint_head(levels: tuple[Level, ...], num_keypoints: int, dialect: KeypointDialect) -> KeypointHead:
    """The keypoint head that a dialect describes, on any levels."""
    sampling = dialect.box.sampling
    return KeypointHead(
        pooler=build_pooler(levels, dialect, dialect.keypoint.roi_size),
        num_keypoints=num_keypoints,
        config=dialect.keypoint,
        most_positive=sampling.count * sampling.positive_fraction,
    )


def build_pooler(levels: tuple[Level, ...], dialect: TwoStageDialect, size: int) -> RoIPooler:
    """How a dialect reads RoIs, in a grid of size x size cells."""
    return RoIPooler(
        levels=roi_levels(levels, dialect.roi.coarsest_level),
        config=dialect.roi.changed(output_size=size),
        legacy_plus_one=dialect.coder.legacy_plus_one,
    )


def _trunk(channels: int, dialect: TwoStageDialect) -> FlatTrunk | ConvolutionTrunk:
    box = dialect.box
    shape = {"channels": channels, "pooled_size": dialect.roi.output_size, "width": dialect.box.width}
    match dialect.box.head:
        case "two_layers":
            return TwoLayerTrunk(**shape)
        case "convolution":
            return ConvolutionTrunk(**shape)
        case "convolution_norm":
            return ConvolutionTrunk(**shape, norm_epsilon=dialect.backbone.norm_epsilon)
        case "convolutions":
            return ConvolutionsTrunk(
                **shape,
                num_convolutions=box.num_convolutions,
                convolution_channels=box.convolution_channels,
                norm=box.norm,
            )


def roi_levels(levels: tuple[Level, ...], coarsest: int = 5) -> tuple[Level, ...]:
    """The levels RoIs are read from: up to level 5, P6 being for large anchors only (paper, section 4.1, footnote)."""
    return tuple(level for level in levels if level.number <= coarsest) or levels
