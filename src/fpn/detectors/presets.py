"""Finished parts put together under a name: the one place where defaults live."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fpn.detectors.builder import build_faster_rcnn
from fpn.detectors.dialect import Dialect
from fpn.detectors.toolkits import DIALECTS
from fpn.detectors.two_stage import FasterRCNN
from fpn.errors import ConfigError
from fpn.structures import Classes
from fpn.suggestions import nearest


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
    head_width: int = 1024,
    features: str = "fpn",
    **conventions: Any,
) -> FasterRCNN:
    """Faster R-CNN on a feature pyramid over any timm model.

    Args:
        classes: names of what to find, or a dataset's `classes`, which keep their original ids.
        backbone: name of a timm model.
        weights: "imagenet" (timm's hub), "offline" (from the package of the `offline` extra), a file, or None.
        dialect: which toolkit's conventions to follow; a name or a `Dialect`.
        short_side: shorter side of an image inside the network, pixels; None: the dialect's.
        long_side: limit of the longer side, pixels; None: in the dialect's proportion to `short_side`.
        frozen_stages: stages of the backbone that are not trained, stem included (0..5).
        frozen_norm: batch norms of the backbone keep their statistics and weights.
        channels: width of the pyramid's maps; None: the dialect's. 96 or 128 serve light backbones and few classes.
        head_width: width of the box head's two layers.
        features: "fpn", or a design that the paper compares it with; see `fpn.features.necks.paper_designs.DESIGNS`.
        conventions: single fields of the dialect to change, such as `anchor_ratios=(1.0,)`.

    Raises:
        ConfigError: an unknown dialect, field, backbone or design.
        ModelFileError, DataNotFoundError, MissingExtraError: the weights can't be had.
    """
    recipe = {
        "kind": "faster_rcnn",
        "backbone": backbone,
        "frozen_stages": frozen_stages,
        "frozen_norm": frozen_norm,
        "head_width": head_width,
    }
    if features != "fpn":
        recipe["features"] = features
    if channels is not None:
        conventions = {"pyramid_channels": channels, "output_channels": channels, **conventions}
    spoken = adapt_dialect(dialect, short_side=short_side, long_side=long_side, **conventions)
    return build_faster_rcnn(recipe, Classes.of(classes), spoken, weights=weights)


def adapt_dialect(
    dialect: str | Dialect, *, short_side: int | None = None, long_side: int | None = None, **conventions: Any
) -> Dialect:
    """A dialect by name, with single conventions changed.

    Raises:
        ConfigError: unknown dialect or field.
    """
    spoken = dialect if isinstance(dialect, Dialect) else _named(dialect)
    known = [field.name for field in fields(Dialect)]
    for name in conventions:
        if name not in known:
            raise ConfigError(f"unknown setting {name!r}.{nearest(name, known)}")
    if short_side is not None and long_side is None and spoken.long_side is not None:
        long_side = round(spoken.long_side * short_side / spoken.short_side)
    if short_side is not None:
        conventions["short_side"] = short_side
    if long_side is not None:
        conventions["long_side"] = long_side
    return replace(spoken, **conventions)


def _named(name: str) -> Dialect:
    if name not in DIALECTS:
        raise ConfigError(f"unknown dialect {name!r}; known: {', '.join(DIALECTS)}.{nearest(name, DIALECTS)}")
    return DIALECTS[name]
