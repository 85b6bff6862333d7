"""A backbone alone as one `.safetensors` file: timm's names, and how its images are made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fpn.detectors.dialect import Dialect, TwoStageDialect
from fpn.detectors.model_file import BACKBONE_KEY
from fpn.errors import ModelFileError, OutputError
from fpn.features.backbones.backbone import Backbone
from fpn.files import atomic_path
from fpn.preprocessing.config import PixelsConfig
from fpn.sections import flat_name
from fpn.version import __version__

# What the weights of a backbone were trained with, whatever detector is built on it.
_SETTINGS = (
    "pixels.channel_order",
    "pixels.value_range",
    "pixels.mean",
    "pixels.std",
    "backbone.stride_on",
    "backbone.norm_epsilon",
)


@dataclass(frozen=True)
class BackboneFile:
    """A backbone that a detector can begin with.

    Attributes:
        path: of the file.
        backbone: timm's name.
        settings: of a dialect, by path, that its weights were trained with.
        record: where they are from.
    """

    path: Path
    backbone: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    def settings_over(self, dialect: Dialect) -> dict[str, Any]:
        """Those in which a dialect differs from what the weights need."""
        return {path: value for path, value in self.settings.items() if not self._has(dialect, path, value)}

    def _has(self, dialect: Dialect, path: str, value: Any) -> bool:
        section, _, name = path.partition(".")
        own = getattr(getattr(dialect, section), name)
        if own is not None:
            return bool(own == (tuple(value) if isinstance(value, list) else value))
        # Nothing is said there: the backbone's own are taken, for images from 0 to 1.
        usual = timm.get_pretrained_cfg(self.backbone)
        return bool(self.settings["pixels.value_range"] == 1 and tuple(value) == tuple(getattr(usual, name)))


def imagenet_dialect(backbone: Backbone) -> TwoStageDialect:
    """How the images of timm's own weights are made."""
    pixels = PixelsConfig(mean=backbone.pixel_mean, std=backbone.pixel_std)
    return TwoStageDialect(name="imagenet", source="timm's pretrained configuration", pixels=pixels)


def save_backbone(
    backbone: Backbone, dialect: Dialect, path: str | os.PathLike[str], *, record: Mapping[str, Any]
) -> BackboneFile:
    """Write a backbone, atomically.

    Args:
        backbone: with its weights.
        dialect: that they were trained with.
        path: of the file.
        record: where they are from, as JSON has it.

    Raises:
        OutputError: it can't be written.
    """
    path = Path(path)
    settings = {each: getattr(getattr(dialect, each.partition(".")[0]), each.partition(".")[2]) for each in _SETTINGS}
    told = {"fpn": __version__, "backbone": backbone.name, "settings": settings, "imported": dict(record)}
    state = {name: value.detach().cpu().contiguous() for name, value in backbone.net.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        try:
            save_file(state, temporary, metadata={BACKBONE_KEY: json.dumps(told)})
        except SafetensorError as error:
            raise OutputError(f"{path}: writing failed ({error}). Free some space or choose another place.") from error
    return BackboneFile(path, backbone.name, settings, record)


def read_backbone_file(path: str | os.PathLike[str]) -> BackboneFile | None:
    """What `save_backbone` wrote; None: it is no such file.

    Raises:
        ModelFileError: it is damaged.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return None
    if BACKBONE_KEY not in metadata:
        return None
    try:
        told = json.loads(metadata[BACKBONE_KEY])
        name, settings, record = told["backbone"], dict(told["settings"]), dict(told["imported"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: its backbone's record is damaged ({type(error).__name__}). Write it again."
        ) from None
    if not isinstance(name, str) or set(settings) != set(_SETTINGS):
        raise ModelFileError(f"{path}: its backbone's record is damaged. Write it again with fpn import.")
    return BackboneFile(path, name, settings, record)


def without(settings: Mapping[str, Any], paths: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that somebody did not set, however they are spelled."""
    taken = {flat_name(path) for path in paths}
    return {path: value for path, value in settings.items() if flat_name(path) not in taken}
