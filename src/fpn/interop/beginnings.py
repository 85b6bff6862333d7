"""What a detector can begin with, by name or file: a model of ours, torchvision's detectors and backbones, timm's
backbones, and files of networks that tell ImageNet's classes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm

from fpn.errors import ConfigError, ModelFileError
from fpn.features.backbones.backbone import Backbone
from fpn.interop.backbone_files import BackboneFile, read_backbone_file, save_backbone
from fpn.interop.imported import ImportedWeights
from fpn.interop.importing import describe_import, import_weights
from fpn.interop.torchvision_registry import cached, find_torchvision, model_of_torchvision
from fpn.interop.weight_names import BACKBONES, TIMM, TORCHVISION, check_source, is_timm, is_torchvision
from fpn.suggestions import nearest

_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Beginning:
    """A model, or a backbone alone.

    Attributes:
        model: file of a whole detector; None: there is only a backbone.
        backbone: its file, or the name of timm's; None: there is a model.
    """

    model: Path | None = None
    backbone: BackboneFile | str | None = None


def find_beginning(name: str | os.PathLike[str]) -> Beginning:
    """What a name or path leads to; what has to be converted for it is kept in torch's cache.

    Raises:
        ConfigError: torchvision or timm have nothing of this name.
        DataNotFoundError: there is no such file, or it is not in the cache, and can't be downloaded.
        ModelFileError: a file of something else, or a whole detector of another toolkit.
    """
    text = str(name)
    if is_timm(text):
        return Beginning(backbone=timm_name(text))
    if is_torchvision(text):
        if text.removeprefix(TORCHVISION) in BACKBONES:
            return Beginning(backbone=_kept(find_torchvision(text).path, text))
        return Beginning(model=model_of_torchvision(text))
    path = Path(name)
    if path.suffix != _SUFFIX:
        check_source(text)
    if path.suffix == _SUFFIX or not path.is_file():
        own = read_backbone_file(path) if path.is_file() else None
        return Beginning(model=path) if own is None else Beginning(backbone=own)
    return Beginning(backbone=_kept(path, text))


def timm_name(name: str) -> str:
    """timm's own name of "timm/NAME".

    Raises:
        ConfigError: it has no such model.
    """
    short = name.removeprefix(TIMM)
    if not timm.is_model(short.partition(".")[0]):
        raise ConfigError(f"{name}: timm has no such model." + nearest(short, timm.list_models(), count=3))
    return short


def as_backbone(imported: ImportedWeights, source: str) -> Backbone:
    """The backbone that a detector can begin with.

    Raises:
        ModelFileError: it is something else.
    """
    if isinstance(imported.module, Backbone):
        return imported.module
    raise ModelFileError(
        f"{source}: is {imported.toolkit}'s, and more than a backbone. `fpn import {source} --output "
        "MODEL.safetensors` makes a model of it, and --init takes that."
    )


def _kept(path: Path, name: str) -> BackboneFile:
    """The file of ours that a checkpoint becomes, by its content."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    place = cached(f"{path.stem}-{digest}")
    own = read_backbone_file(place) if place.is_file() else None
    if own is not None:
        return own
    imported = import_weights(path)
    record: dict[str, Any] = describe_import(imported, name, [])
    return save_backbone(as_backbone(imported, name), imported.dialect, place, record=record)
