"""Finished parts put together under a name: the one place where defaults live."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from fpn.detectors.builder import build_one_stage, build_segment_proposer, build_two_stage
from fpn.detectors.cascade_toolkits import CASCADE_DIALECTS
from fpn.detectors.dense_toolkits import ATSS_DIALECTS, FCOS_DIALECTS, RETINANET_DIALECTS
from fpn.detectors.detector import Detector
from fpn.detectors.dialect import Dialect
from fpn.detectors.one_stage import OneStageDetector
from fpn.detectors.recipe import (
    ATSSRecipe,
    CascadeMaskRCNNRecipe,
    CascadeRCNNRecipe,
    FasterRCNNRecipe,
    FCOSRecipe,
    KeypointRCNNRecipe,
    MaskRCNNRecipe,
    Recipe,
    RetinaNetRecipe,
    SegmentProposalsRecipe,
    TwoStageRecipe,
    skeleton_fields,
)
from fpn.detectors.roi_toolkits import CASCADE_MASK_DIALECTS, KEYPOINT_DIALECTS, MASK_DIALECTS
from fpn.detectors.segment_proposer import SegmentProposer
from fpn.detectors.segment_toolkits import SEGMENT_DIALECTS
from fpn.detectors.toolkits import DIALECTS, PAPER
from fpn.detectors.two_stage import TwoStageDetector
from fpn.errors import ConfigError
from fpn.structures import OBJECT, Classes, Skeleton
from fpn.suggestions import nearest

R = TypeVar("R", bound=Recipe)
T = TypeVar("T", bound=TwoStageRecipe)
D = TypeVar("D", bound=Dialect)

# The dialects that each kind of detector has, by name.
DIALECTS_OF: Mapping[str, Mapping[str, Dialect]] = {
    "faster_rcnn": DIALECTS,
    "cascade_rcnn": CASCADE_DIALECTS,
    "mask_rcnn": MASK_DIALECTS,
    "cascade_mask_rcnn": CASCADE_MASK_DIALECTS,
    "keypoint_rcnn": KEYPOINT_DIALECTS,
    "retinanet": RETINANET_DIALECTS,
    "fcos": FCOS_DIALECTS,
    "atss": ATSS_DIALECTS,
    "segment_proposals": SEGMENT_DIALECTS,
}

# What presets take beside the settings of a dialect.
_NOT_OF_DIALECTS = frozenset({"backbone", "neck", "frozen_stages", "frozen_norm", "detector"})


def faster_rcnn(
    *,
    classes: Classes | Iterable[str],
    backbone: str = "resnet50",
    weights: str | Path | None = "imagenet",
    dialect: str | Dialect = "paper",
    short_side: int | None = None,
    long_side: int | None = None,
    frozen_stages: int = 2,
    frozen_norm: bool = True,
    channels: int | None = None,
    head_width: int | None = None,
    neck: str = "fpn",
    **conventions: Any,
) -> TwoStageDetector:
    """Faster R-CNN on a feature pyramid over any timm model.

    Args:
        classes: names of what to find, or a dataset's `classes`, which keep their original ids.
        backbone: name of a timm model.
        weights: "imagenet" (timm's hub), "offline" (from the package of the `offline` extra), a file, or None
            ("none", as the command line has it): random.
        dialect: which toolkit's conventions to follow; a name or a `Dialect`.
        short_side: shorter side of an image inside the network, pixels; None: the dialect's.
        long_side: limit of the longer side, pixels; None: in the dialect's proportion to `short_side`.
        frozen_stages: stages of the backbone that are not trained, stem included (0..5).
        frozen_norm: batch norms of the backbone keep their statistics and weights.
        channels: width of the pyramid's maps; None: the dialect's. 96 or 128 serve light backbones and few classes.
        head_width: width of the box head's two layers; None: the dialect's, 1024.
        neck: "fpn", "pafpn", "bifpn", "simple_pyramid" (for plain vision transformers), or a design that the paper
            compares it with; see `fpn.features.necks.designs.DESIGNS`.
        conventions: single settings of the dialect's sections, such as `anchors_ratios=(1.0,)` or
            `rpn={"nms": 0.6}`; see docs/dialects.md.

    Raises:
        ConfigError: an unknown dialect, setting, backbone or neck, or a value that its setting can't have.
        ModelFileError, DataNotFoundError, MissingExtraError: the weights can't be had.
    """
    recipe = two_stage_recipe(
        FasterRCNNRecipe,
        classes,
        dialect,
        backbone=backbone,
        short_side=short_side,
        long_side=long_side,
        frozen_stages=frozen_stages,
        frozen_norm=frozen_norm,
        channels=channels,
        head_width=head_width,
        neck=neck,
        **conventions,
    )
    return build_two_stage(recipe, weights)


def cascade_rcnn(
    *,
    classes: Classes | Iterable[str],
    weights: str | Path | None = "imagenet",
    dialect: str | Dialect = "paper",
    masks: bool = False,
    **settings: Any,
) -> TwoStageDetector:
    """Cascade R-CNN: Faster R-CNN with three box heads in a row, each trained on better boxes than the one before.

    Args:
        classes, weights, dialect: as `faster_rcnn` takes them.
        masks: also give the mask of each object, learned from outlines (`cascade_mask_rcnn` on the command line).
        settings: as `faster_rcnn` takes them, such as `backbone="resnet18"` or `short_side=640`, and those of the
            section `cascade`, such as `cascade_loss_weights=(1.0, 1.0, 1.0)`, and with masks of the section `mask`.

    Raises:
        as `faster_rcnn`.
    """
    if masks:
        return build_two_stage(two_stage_recipe(CascadeMaskRCNNRecipe, classes, dialect, **settings), weights)
    return build_two_stage(two_stage_recipe(CascadeRCNNRecipe, classes, dialect, **settings), weights)


def mask_rcnn(
    *,
    classes: Classes | Iterable[str],
    weights: str | Path | None = "imagenet",
    dialect: str | Dialect = "paper",
    **settings: Any,
) -> TwoStageDetector:
    """Mask R-CNN: Faster R-CNN that also gives the mask of each object. It learns from outlines.

    Args:
        classes, weights, dialect: as `faster_rcnn` takes them.
        settings: as `faster_rcnn` takes them, such as `backbone="resnet18"` or `short_side=640`, and those of the
            section `mask`, such as `mask_class_agnostic=True`.

    Raises:
        as `faster_rcnn`.
    """
    return build_two_stage(two_stage_recipe(MaskRCNNRecipe, classes, dialect, **settings), weights)


def keypoint_rcnn(
    *,
    classes: Classes | Iterable[str],
    skeleton: Skeleton | Iterable[str],
    weights: str | Path | None = "imagenet",
    dialect: str | Dialect = "paper",
    **settings: Any,
) -> TwoStageDetector:
    """Keypoint R-CNN: Faster R-CNN that also gives the keypoints of each object. It learns from labelled keypoints.

    Args:
        classes, weights, dialect: as `faster_rcnn` takes them.
        skeleton: a dataset's `skeleton`, or names of the keypoints; those that differ in "left" and "right" change
            places in a mirror.
        settings: as `faster_rcnn` takes them, such as `backbone="resnet18"` or `short_side=640`, and those of the
            section `keypoint`, such as `keypoint_channels=256`.

    Raises:
        as `faster_rcnn`.
    """
    points = skeleton if isinstance(skeleton, Skeleton) else Skeleton.named(tuple(skeleton))
    recipe = two_stage_recipe(KeypointRCNNRecipe, classes, dialect, own=skeleton_fields(points), **settings)
    return build_two_stage(recipe, weights)


def retinanet(
    *,
    classes: Classes | Iterable[str],
    weights: str | Path | None = "imagenet",
    dialect: str | Dialect = "paper",
    **settings: Any,
) -> OneStageDetector:
    """RetinaNet: one stage, nine anchors a cell of P3 to P7, learned by the focal loss.

    Args:
        classes, weights: as `faster_rcnn` takes them.
        dialect: one of `RETINANET_DIALECTS`, or a name.
        settings: as `faster_rcnn` takes them, but no `head_width`; `channels` is the width of the pyramid's maps and of
            the towers on them. Also single settings of the dialect's sections, such as `dense_nms=0.6`.

    Raises:
        ConfigError, ModelFileError, DataNotFoundError, MissingExtraError: as `faster_rcnn`.
    """
    return build_one_stage(pyramid_recipe(RetinaNetRecipe, classes, dialect, **settings), weights)


def fcos(
    *,
    classes: Classes | Iterable[str],
    weights: str | Path | None = "imagenet",
    dialect: str | Dialect = "paper",
    **settings: Any,
) -> OneStageDetector:
    """FCOS: one stage and no anchors: each cell tells the distances of its object's sides.

    Args:
        classes, weights: as `faster_rcnn` takes them.
        dialect: one of `FCOS_DIALECTS`, or a name.
        settings: as `retinanet` takes them.

    Raises:
        ConfigError, ModelFileError, DataNotFoundError, MissingExtraError: as `faster_rcnn`.
    """
    return build_one_stage(pyramid_recipe(FCOSRecipe, classes, dialect, **settings), weights)


def atss(
    *,
    classes: Classes | Iterable[str],
    weights: str | Path | None = "imagenet",
    dialect: str | Dialect = "paper",
    **settings: Any,
) -> OneStageDetector:
    """ATSS: one stage, one anchor a cell, and objects that choose by themselves which anchors learn them.

    Args:
        classes, weights: as `faster_rcnn` takes them.
        dialect: one of `ATSS_DIALECTS`, or a name.
        settings: as `retinanet` takes them.

    Raises:
        ConfigError, ModelFileError, DataNotFoundError, MissingExtraError: as `faster_rcnn`.
    """
    return build_one_stage(pyramid_recipe(ATSSRecipe, classes, dialect, **settings), weights)


def segment_proposals(
    *, weights: str | Path | None = "imagenet", dialect: str | Dialect = "paper", **settings: Any
) -> SegmentProposer:
    """Segment proposals: masks of whatever may be an object, ranked, all of one class. It learns from outlines.

    As in the paper's section 6, the best 1000 windows of an image are given as they are, and neighbours give nearly the
    same mask: `segments_nms=0.7` leaves fewer that differ. On a single map, such as `neck="p2_only"`, all windows
    are for objects of one size.

    Args:
        weights: as `faster_rcnn` takes them.
        dialect: one of `SEGMENT_DIALECTS`, or a name.
        settings: as `faster_rcnn` takes them, but no `classes` and no `head_width`, and those of the section
            `segments`, such as `segments_windows=(5,)`.

    Raises:
        ConfigError, ModelFileError, DataNotFoundError, MissingExtraError: as `faster_rcnn`.
    """
    if "classes" in settings:
        raise ConfigError("classes: segment proposals tell none apart, all objects are of one class. Leave them out.")
    return build_segment_proposer(pyramid_recipe(SegmentProposalsRecipe, OBJECT, dialect, **settings), weights)


# Each kind of detector by its name.
PRESETS: Mapping[str, Callable[..., Detector]] = {
    "faster_rcnn": faster_rcnn,
    "cascade_rcnn": cascade_rcnn,
    "mask_rcnn": mask_rcnn,
    "cascade_mask_rcnn": partial(cascade_rcnn, masks=True),
    "keypoint_rcnn": keypoint_rcnn,
    "retinanet": retinanet,
    "fcos": fcos,
    "atss": atss,
    "segment_proposals": segment_proposals,
}


def named_preset(kind: str) -> Callable[..., Detector]:
    """One of `PRESETS`.

    Raises:
        ConfigError: unknown.
    """
    if kind not in PRESETS:
        raise ConfigError(f"unknown detector {kind!r}; known: {', '.join(PRESETS)}.{nearest(kind, PRESETS)}")
    return PRESETS[kind]


def two_stage_recipe(
    kind: type[T],
    classes: Classes | Iterable[str],
    dialect: str | Dialect,
    *,
    head_width: int | None = None,
    **settings: Any,
) -> T:
    """The recipe of a kind with proposals and heads on them.

    Args:
        kind: which.
        classes, dialect, head_width: as `faster_rcnn` takes them.
        settings: as `pyramid_recipe` takes them.
    """
    return pyramid_recipe(kind, classes, dialect, **{**widths(None, head_width), **settings})


def pyramid_recipe(
    kind: type[R],
    classes: Classes | Iterable[str],
    dialect: str | Dialect,
    *,
    own: Mapping[str, Any] | None = None,
    backbone: str = "resnet50",
    short_side: int | None = None,
    long_side: int | None = None,
    frozen_stages: int = 2,
    frozen_norm: bool = True,
    channels: int | None = None,
    neck: str = "fpn",
    **conventions: Any,
) -> R:
    """The recipe of any kind on a pyramid, without what only heads on proposals have.

    Args:
        kind: which.
        classes, dialect, conventions, and the others: as `faster_rcnn` takes them.
        own: further fields of this kind.
    """
    parts = {"backbone": backbone, "frozen_stages": frozen_stages, "frozen_norm": frozen_norm, "neck": neck}
    sides = {"short_side": short_side, "long_side": long_side}
    conventions = {**sides, **widths(channels, None), **conventions}
    return make_recipe(kind, classes, dialect, {**parts, **(own or {})}, conventions)


def make_recipe(
    kind: type[R],
    classes: Classes | Iterable[str],
    dialect: str | Dialect,
    parts: Mapping[str, Any],
    conventions: Mapping[str, Any],
) -> R:
    """The recipe of any kind of detector.

    Args:
        kind: which.
        classes: names, or a dataset's `classes`.
        dialect: a name, or one of this kind.
        parts: `backbone`, `frozen_stages`, `frozen_norm`, `neck`, and what only this kind has.
        conventions: as `adapt_dialect` takes them.
    """
    named = Classes.of(classes)
    name = str(kind.model_fields["kind"].default)
    spoken, wanted = adapt_dialect(dialect, name, **conventions), kind.dialect_type()
    if type(spoken) is not wanted:
        raise ConfigError(
            f"dialect {spoken.name!r} is a {type(spoken).__name__}, and {name} takes a {wanted.__name__}. "
            f"Its dialects: {', '.join(DIALECTS_OF[name])}"
        )
    return kind(**parts, classes=named.names, category_ids=named.ids, dialect=spoken)


def widths(channels: int | None, head_width: int | None) -> dict[str, int]:
    """What the two short names stand for among a dialect's settings; None: the dialect's."""
    neck = {} if channels is None else {"neck_channels": channels, "neck_output_channels": channels}
    return neck if head_width is None else {**neck, "box_width": head_width}


@overload
def adapt_dialect(
    dialect: D, /, *, short_side: int | None = ..., long_side: int | None = ..., **conventions: Any
) -> D: ...


@overload
def adapt_dialect(
    dialect: str | D,
    kind: str = ...,
    /,
    *,
    short_side: int | None = ...,
    long_side: int | None = ...,
    **conventions: Any,
) -> Dialect | D:
    """By its name, or itself."""
    raise NotImplementedError


def adapt_dialect(
    dialect: str | D,
    kind: str = "faster_rcnn",
    /,
    *,
    short_side: int | None = None,
    long_side: int | None = None,
    **conventions: Any,
) -> Dialect | D:
    """A dialect by name, with single settings changed, as `Section.changed` takes them.

    Args:
        dialect: its name, or itself.
        kind: of the detector that a name is looked up for.
        short_side, long_side: of images in the network; see the presets.
        conventions: the settings.

    Raises:
        ConfigError: unknown dialect or setting, or a value that its setting can't have.
    """
    spoken = named_dialect(dialect, kind) if isinstance(dialect, str) else dialect
    pixels = spoken.pixels
    if short_side is not None and long_side is None and pixels.long_side is not None:
        short_side = spoken.changed(pixels_short_side=short_side).pixels.short_side  # a number from here on
        long_side = round(pixels.long_side * short_side / pixels.short_side)
    sides = {"pixels_short_side": short_side, "pixels_long_side": long_side}
    return spoken.changed(**{name: side for name, side in sides.items() if side is not None}, **conventions)


def preset_dialect(kind: str, options: Mapping[str, Any]) -> Dialect:
    """The dialect of the detector that a preset would make.

    Args:
        kind: of the detector.
        options: as the preset takes them; those that are none of the dialect's are not looked at.

    Raises:
        ConfigError: as `adapt_dialect`.
    """
    rest = {name: value for name, value in options.items() if name not in _NOT_OF_DIALECTS}
    wide = widths(rest.pop("channels", None), rest.pop("head_width", None))
    return adapt_dialect(rest.pop("dialect", PAPER.name), kind, **wide, **rest)


def named_dialect(name: str, kind: str = "faster_rcnn") -> Dialect:
    """One of `DIALECTS_OF` a kind of detector.

    Raises:
        ConfigError: unknown.
    """
    named_preset(kind)
    known = DIALECTS_OF[kind]
    if name not in known:
        raise ConfigError(f"dialect {name!r}: {kind} has {', '.join(known)}.{nearest(name, known)}")
    return known[name]
