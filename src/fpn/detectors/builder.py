"""Recipes to detectors: every part gets its settings here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from torch import nn

from fpn.detectors.dialect import Dialect
from fpn.detectors.two_stage import FasterRCNN
from fpn.errors import ConfigError
from fpn.features.backbones.backbone import Backbone
from fpn.features.backbones.resnet_variants import ResNetVariant
from fpn.features.extractor import FeatureExtractor
from fpn.features.necks.fpn import FeaturePyramid
from fpn.features.necks.paper_designs import DESIGNS, Design
from fpn.heads.anchors import AnchorPlan
from fpn.heads.box import BoxHead, ConvolutionTrunk, DetectionSelection, TwoLayerTrunk
from fpn.heads.box_coder import BoxCoding
from fpn.heads.roi_pooler import RoiPooler
from fpn.heads.rpn import RPN, ProposalSelection
from fpn.heads.sampling import Sampling
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.structures import Classes, Level
from fpn.suggestions import nearest


def build_faster_rcnn(
    recipe: Mapping[str, Any], classes: Classes, dialect: Dialect, *, weights: str | Path | None
) -> FasterRCNN:
    """A detector from its recipe; `weights` as in `faster_rcnn`."""
    if len(classes) == 0:
        raise ConfigError("a detector needs at least one class")
    design = named_design(recipe.get("features", "fpn"))
    body = Backbone(
        recipe["backbone"],
        weights=weights,
        frozen_stages=recipe["frozen_stages"],
        frozen_norm=recipe["frozen_norm"],
        variant=resnet_variant(dialect),
        out=tuple(number for number in design.out if number >= dialect.finest_level),
    )
    dialect = replace(dialect, mean=dialect.mean or body.pixel_mean, std=dialect.std or body.pixel_std)
    features = build_features(body, design, dialect)
    full_recipe = {
        **recipe,
        "classes": list(classes.names),
        "category_ids": list(classes.ids),
        "dialect": asdict(dialect),
    }
    return assemble_faster_rcnn(features, classes, dialect, full_recipe)


def resnet_variant(dialect: Dialect) -> ResNetVariant:
    """How the dialect's ResNet differs from timm's."""
    return ResNetVariant(
        stride_on=dialect.bottleneck_stride,
        norm_epsilon=dialect.norm_epsilon,
        conv_bias=dialect.backbone_bias,
        stem_pool=dialect.stem_pool,
        last_stage_stride=dialect.last_stage_stride,
    )


def named_design(name: str) -> Design:
    """One of the designs that the paper compares.

    Raises:
        ConfigError: unknown.
    """
    if name not in DESIGNS:
        raise ConfigError(f"unknown design {name!r}; known: {', '.join(DESIGNS)}.{nearest(name, DESIGNS)}")
    return DESIGNS[name]


def build_features(body: nn.Module, design: Design, dialect: Dialect) -> FeatureExtractor:
    """The dialect's own pyramid, or one of its rivals in the same width."""
    return build_pyramid(body, dialect) if design.name == "fpn" else design.build(body, dialect.output_channels)


def build_pyramid(body: nn.Module, dialect: Dialect) -> FeaturePyramid:
    """The pyramid that a dialect describes, on any bottom-up path."""
    return FeaturePyramid(
        body=body,
        channels=dialect.pyramid_channels,
        output_channels=dialect.output_channels,
        top_down=dialect.top_down,
        smoothed=dialect.smoothed,
        smooth_before_merge=dialect.smooth_before_merge,
        top_kernel=dialect.top_kernel,
        bias=dialect.pyramid_bias,
        extra_levels=dialect.extra_levels,
    )


def assemble_faster_rcnn(features: nn.Module, classes: Classes, dialect: Dialect, recipe: dict[str, Any]) -> FasterRCNN:
    """Heads after a dialect on any features module that declares `levels`."""
    levels: tuple[Level, ...] = tuple(features.levels)  # type: ignore[arg-type]
    dialect = adapt_to_levels(dialect, levels)
    return FasterRCNN(
        features=features,
        proposal=build_rpn(levels, dialect),
        box=build_box_head(levels, len(classes), dialect, recipe.get("head_width", 1024)),
        classes=classes,
        preprocessor=Preprocessor.of(dialect),
        recipe=recipe,
    )


def adapt_to_levels(dialect: Dialect, levels: tuple[Level, ...]) -> Dialect:
    """On a single map, the anchors of all sizes stand in each cell (paper, section 5.1.1: 5 scales x 3 ratios).

    As many candidates then enter its suppression as from all levels of a pyramid together.
    """
    sizes = tuple(chain.from_iterable(dialect.anchor_sizes))
    if len(levels) != 1 or len(dialect.anchor_sizes) == 1:
        return dialect
    training, testing = dialect.proposals_before_nms
    if dialect.proposal_scope == "level":
        training, testing = training * len(dialect.anchor_sizes), testing * len(dialect.anchor_sizes)
    return replace(dialect, anchor_sizes=(sizes,), proposals_before_nms=(training, testing))


def build_rpn(levels: tuple[Level, ...], dialect: Dialect) -> RPN:
    """The region proposal network that a dialect describes, on any levels."""
    counts = [len(sizes) for sizes in dialect.anchor_sizes]
    if len(counts) != len(levels) or len(set(counts)) != 1:
        raise ConfigError(
            f"anchor_sizes has {len(counts)} entries with {', '.join(map(str, counts))} sizes, for the {len(levels)} "
            f"levels {', '.join(level.name for level in levels)}. Give one entry a level, each with as many sizes."
        )
    return RPN(
        levels=levels,
        anchors=AnchorPlan(
            sizes=dialect.anchor_sizes,
            ratios=dialect.anchor_ratios,
            ratio=dialect.anchor_ratio,
            offset=dialect.anchor_offset,
            rounded=dialect.anchor_rounding,
            order=dialect.anchor_order,
            strides=dialect.anchor_strides,
            inclusive_corners=dialect.inclusive_corners,
        ),
        coding=_coding(dialect, dialect.proposal_weights),
        selection=ProposalSelection(
            before_nms=dialect.proposals_before_nms,
            after_nms=dialect.proposals_after_nms,
            nms=dialect.proposal_nms,
            min_size=dialect.proposal_min_size,
            scope=dialect.proposal_scope,
            padded=dialect.pad_proposals,
        ),
        sampling=Sampling(
            positive_iou=dialect.anchor_positive_iou,
            negative_iou=dialect.anchor_negative_iou,
            keep_best=True,
            count=dialect.anchor_samples,
            positive_fraction=dialect.anchor_positive_fraction,
            best_iou=dialect.anchor_best_iou,
            legacy_plus_one=dialect.legacy_plus_one,
        ),
        channels=dialect.proposal_channels,
        objectness=dialect.objectness,
        inside_only=dialect.anchors_inside_only,
        beta=dialect.proposal_beta,
    )


def build_box_head(levels: tuple[Level, ...], num_classes: int, dialect: Dialect, width: int = 1024) -> BoxHead:
    """The box head that a dialect describes, on any levels; `width` is that of its two layers."""
    pooled = roi_levels(levels)
    return BoxHead(
        pooler=RoiPooler(
            levels=pooled,
            output_size=dialect.pooled_size,
            sampler=dialect.roi_sampler,
            aligned=dialect.roi_aligned,
            sampling_ratio=dialect.roi_sampling_ratio,
            max_pool=dialect.roi_max_pool,
            level_rule=dialect.level_rule,
            canonical_size=dialect.level_canonical_size,
            canonical_level=dialect.level_canonical,
            size_relative=dialect.level_size_relative,
            scale=dialect.roi_scale,
            legacy_plus_one=dialect.legacy_plus_one,
        ),
        trunk=_trunk(pooled[0].channels, dialect, width),
        num_classes=num_classes,
        coding=_coding(dialect, dialect.box_weights),
        sampling=Sampling(
            positive_iou=dialect.roi_positive_iou,
            negative_iou=dialect.roi_positive_iou,
            keep_best=False,
            count=dialect.roi_samples,
            positive_fraction=dialect.roi_positive_fraction,
            legacy_plus_one=dialect.legacy_plus_one,
        ),
        selection=DetectionSelection(
            score_limit=dialect.score_limit,
            nms=dialect.detection_nms,
            limit=dialect.detections_limit,
            min_size=dialect.detection_min_size,
            choice=dialect.head_class_choice,
            nms_frame=dialect.detection_nms_frame,
        ),
        class_agnostic=dialect.class_agnostic,
        beta=dialect.box_beta,
    )


def _trunk(channels: int, dialect: Dialect, width: int) -> TwoLayerTrunk | ConvolutionTrunk:
    if dialect.box_head == "two_layers":
        return TwoLayerTrunk(channels=channels, pooled_size=dialect.pooled_size, width=width)
    epsilon = dialect.norm_epsilon if dialect.box_head == "convolution_norm" else None
    return ConvolutionTrunk(channels=channels, pooled_size=dialect.pooled_size, width=width, norm_epsilon=epsilon)


def roi_levels(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    """The levels RoIs are read from: up to level 5, P6 being for large anchors only (paper, section 4.1, footnote)."""
    return tuple(level for level in levels if int(level.name[1:]) <= 5) or levels


def _coding(dialect: Dialect, weights: tuple[float, float, float, float]) -> BoxCoding:
    return BoxCoding(
        weights=weights,
        clamp=dialect.delta_clamp,
        clamp_both=dialect.delta_clamp_both,
        legacy_plus_one=dialect.legacy_plus_one,
        inclusive_corners=dialect.inclusive_corners,
    )
