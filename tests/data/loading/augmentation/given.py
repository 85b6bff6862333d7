"""Labelled images whose pixels say where their objects are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from fpn.data.dataset import Sample
from fpn.data.loading.augmentation.chances import Chances, random_for
from fpn.data.loading.augmentation.compositing import Partners
from fpn.shapes import Size
from fpn.structures import Masks, Skeleton, Targets

SIZE = Size(60, 100)
SKELETON = Skeleton(("nose", "left", "right"), flip_pairs=((1, 2),))


def chances(index: int = 0) -> Chances:
    return Chances.drawn(random_for(0, 0, index))


def labelled(
    boxes: Sequence[Sequence[float]],
    *,
    size: Size = SIZE,
    ground: int = 0,
    ink: int = 255,
    masks: str = "none",
    points: Sequence[Sequence[Sequence[float]]] | None = None,
    ignore: Sequence[bool] = (),
) -> Sample:
    """Filled boxes on a ground, with masks of the kind "polygons", "codes" or "none", and keypoints."""
    pixels = np.full((*size, 3), ground, dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[round(y1) : round(y2), round(x1) : round(x2)] = ink
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    outlines = Masks.of_boxes(corners, size)
    made = {"none": None, "polygons": outlines, "codes": Masks.from_dense(outlines.dense(), size)}[masks]
    keypoints = None if points is None else torch.tensor(points, dtype=torch.float32).reshape(-1, 3, 3)
    flags = torch.tensor(list(ignore) or [False] * len(boxes), dtype=torch.bool)
    targets = Targets(corners, torch.arange(len(boxes)), flags, made, keypoints)
    return Sample(Image.fromarray(pixels), targets, 1, "drawn", SKELETON)


def partners(*samples: Sample) -> Partners:
    return Partners(len(samples), lambda number: samples[number])


def ink_box(image: Image.Image, above: int = 127) -> list[float]:
    """Where the image is bright."""
    y, x = (np.asarray(image)[:, :, 0] > above).nonzero()
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]
