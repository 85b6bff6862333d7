"""What is measured on: made-up images with objects."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from fpn.shapes import Size


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


def draw_truth(count: int, size: Size, *, num_classes: int, objects: int = 12) -> list[tuple[Tensor, Tensor]]:
    """Boxes and labels, a dozen an image as a blood smear has."""
    random = torch.Generator().manual_seed(1)
    limit = torch.tensor([size.width, size.height])
    truth = []
    for _ in range(count):
        sides = (torch.rand(objects, 2, generator=random) * 0.25 + 0.05) * limit
        corners = torch.rand(objects, 2, generator=random) * (limit - sides)
        labels = torch.randint(0, num_classes, (objects,), generator=random)
        truth.append((torch.cat([corners, corners + sides], dim=1), labels))
    return truth
