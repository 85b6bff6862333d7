"""What is measured on: made-up images with objects."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fpn.detectors import Detector
from fpn.errors import ConfigError
from fpn.shapes import Size
from fpn.structures import Masks, Targets

_CORNERS = 24
_SMALLEST = 32


def refuse_too_little(size: Size, **counts: int) -> None:
    """Stop where there would be nothing to measure.

    Args:
        size: of the images.
        counts: by the names that people know them by.

    Raises:
        ConfigError: a count below 1, or images in which a pyramid has no cells.
    """
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name} {count}: expected 1 or more")
    if min(size) < _SMALLEST:
        raise ConfigError(f"size {size.width}x{size.height}: expected {_SMALLEST} pixels a side or more")


def draw_noise(count: int, size: Size) -> list[Tensor]:
    """Smooth noise (3, H, W), 0 to 1: at every scale there is something, so that no stage is idle."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, max(size.height // 8, 1), max(size.width // 8, 1), generator=random)
    return list(functional.interpolate(coarse, size=tuple(size), mode="bilinear").clamp(0, 1))


def write_jpegs(images: list[Tensor], folder: Path) -> list[Path]:
    """As JPEG files, as they come from cameras."""
    paths = []
    for number, image in enumerate(images):
        paths.append(folder / f"{number}.jpg")
        array = (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        Image.fromarray(array).save(paths[-1], quality=90)
    return paths


def draw_truth(count: int, size: Size, detector: Detector, *, objects: int = 12) -> list[Targets]:
    """A dozen objects an image as a blood smear has, with all that the detector learns from: cells have round outlines,
    and keypoints anywhere in their boxes."""
    random = torch.Generator().manual_seed(1)
    limit = torch.tensor([size.width, size.height])
    truth = []
    for _ in range(count):
        sides = (torch.rand(objects, 2, generator=random) * 0.25 + 0.05) * limit
        corners = torch.rand(objects, 2, generator=random) * (limit - sides)
        labels = torch.randint(0, len(detector.classes), (objects,), generator=random)
        masks = _round(corners, sides, size) if "masks" in detector.tasks else None
        keypoints = None
        if detector.skeleton is not None:
            places = torch.rand(objects, len(detector.skeleton), 2, generator=random) * sides[:, None]
            keypoints = torch.cat([corners[:, None] + places, torch.full_like(places[..., :1], 2)], dim=2)
        truth.append(Targets(torch.cat([corners, corners + sides], dim=1), labels, masks=masks, keypoints=keypoints))
    return truth


def _round(corners: Tensor, sides: Tensor, size: Size) -> Masks:
    """An ellipse in each box."""
    angles = torch.arange(_CORNERS) * (2 * math.pi / _CORNERS)
    circle = (torch.stack([angles.cos(), angles.sin()], dim=1) + 1) / 2
    outlines = corners[:, None] + sides[:, None] * circle
    return Masks.of_outlines([[each.double().numpy()] for each in outlines], size)
