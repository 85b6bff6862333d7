"""Weights that have names: which there are, and which one was meant. Nothing heavy is imported for it."""

from __future__ import annotations

from pathlib import Path

from fpn.errors import ConfigError, DataNotFoundError
from fpn.suggestions import find_nearest_path, nearest

TORCHVISION, TIMM = "torchvision/", "timm/"
# Of torchvision.models.detection, those with a pyramid.
NAMES = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
)
# Of torchvision.models, those that tell ImageNet's classes and are read as backbones.
BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
)


def is_torchvision(name: object) -> bool:
    """Whether "torchvision/NAME" was meant."""
    return str(name).startswith(TORCHVISION) and not Path(str(name)).exists()


def is_timm(name: object) -> bool:
    """Whether "timm/NAME" was meant."""
    return str(name).startswith(TIMM) and not Path(str(name)).exists()


def check_torchvision(name: str) -> str:
    """The NAME of "torchvision/NAME".

    Raises:
        ConfigError: torchvision has no such detector or backbone.
    """
    short = name.removeprefix(TORCHVISION)
    if short not in (*NAMES, *BACKBONES):
        raise ConfigError(
            f"{name}: torchvision has no such detector; known: {', '.join(NAMES)}; nor such a backbone; known: "
            f"{', '.join(BACKBONES)}." + nearest(short, (*NAMES, *BACKBONES))
        )
    return short


def check_source(source: str) -> None:
    """Stop before any work where there is neither such a file nor such a name; timm's own names it is asked for later.

    Raises:
        ConfigError: torchvision has nothing of this name.
        DataNotFoundError: no such file, nor a name that begins so.
    """
    if is_torchvision(source):
        check_torchvision(source)
    elif not is_timm(source) and not Path(source).exists():
        raise DataNotFoundError(
            f"{source}: no such file. Weights with a name are torchvision/NAME and timm/NAME.{meant(source)}"
        )


def meant(source: str) -> str:
    """ " Did you mean 'x'?" for the nearest name or file, or what there is where the file was looked for."""
    place, _, rest = source.partition("/")
    prefix = next((each for each in (TORCHVISION, TIMM) if nearest(place, [each.rstrip("/")])), "")
    if prefix == TIMM and rest:
        return nearest(source, [TIMM + rest])
    named = nearest(rest if prefix else source, (*NAMES, *BACKBONES)).replace("'", f"'{TORCHVISION}", 1)
    if prefix:
        return named
    beside = find_nearest_path(source)
    return str(beside) if beside.mistyped else named or str(beside)
