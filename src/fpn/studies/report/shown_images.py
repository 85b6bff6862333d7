"""Images inside of the page: drawn, made small, and written as data, up to a number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from fpn.data.dataset import Dataset
from fpn.drawing import draw
from fpn.ops.boxes import pairwise_iou
from fpn.shapes import Size
from fpn.structures import Classes, Detections, Targets
from fpn.studies.report.label_errors import LabelError
from fpn.studies.report.outcomes import ImageOutcome

# Longer side of a whole image, and side of the part around a label, in pixels.
_WHOLE, _PART = 640, 220
# Small images are enlarged up to so many times, so that labels leave something to see.
_LARGER = 3.0
# The part is so many times as long as its box, and at least so many pixels of the original.
_AROUND, _LEAST = 2.5, 64
# Boxes that overlap it by less are neighbours.
_SAME = 0.1
_QUALITY = 80


class ImageRoom:
    """Room for images in a page.

    Attributes:
        taken: bytes so far.
        left_out: images that there was no room for.
    """

    def __init__(self, limit: int) -> None:
        """Room for so many bytes."""
        self._limit = limit
        self.taken = 0
        self.left_out = 0

    def embed(self, image: Image.Image) -> str | None:
        """The image as a data URI; None where the room is used up."""
        data = io.BytesIO()
        image.save(data, "JPEG", quality=_QUALITY, optimize=True)
        text = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
        if self.taken + len(text) > self._limit:
            self.left_out += 1
            return None
        self.taken += len(text)
        return text


def show_pair(dataset: Dataset, outcome: ImageOutcome, classes: Classes, room: ImageRoom) -> dict[str, Any] | None:
    """An image's truth and its counted detections, as two data URIs; None where there is no room."""
    image = dataset.image(outcome.index)
    scale = min(_LARGER, _WHOLE / max(image.size))
    truth, found = (
        room.embed(draw(image, objects, classes, scale=scale, skeleton=dataset.skeleton))
        for objects in (outcome.truth, outcome.sure)
    )
    return None if truth is None or found is None else {"truth": truth, "found": found}


def show_part(
    dataset: Dataset, error: LabelError, outcome: ImageOutcome, classes: Classes, room: ImageRoom
) -> dict[str, Any] | None:
    """The surroundings of a label, with what is labelled and what was found in its place; None where there is no room.

    Neighbours are left out, so that it is clear which label is meant.
    """
    image = dataset.image(error.index)
    x, y, side = _square(image, error.box)
    scale = _PART / side
    whole = image.crop((x, y, x + side, y + side))
    place = torch.tensor([error.box])
    parts: Sequence[Targets | Detections] = (outcome.truth, outcome.sure)
    shown = [_moved(each[pairwise_iou(place, each.boxes)[0] >= _SAME], x, y, side) for each in parts]
    labelled, said = (room.embed(draw(whole, each, classes, scale=scale, skeleton=dataset.skeleton)) for each in shown)
    return None if labelled is None or said is None else {"truth": labelled, "found": said}


def _moved(objects: Targets | Detections, x: int, y: int, side: int) -> Targets | Detections:
    """Into the frame of the part of the image that begins at (x, y)."""
    masks, keypoints = objects.masks, objects.keypoints
    return replace(
        objects,
        boxes=objects.boxes - torch.tensor([x, y, x, y], dtype=torch.float32),
        masks=None if masks is None else masks.shifted(top=-y, left=-x, size=Size(side, side)),
        keypoints=None if keypoints is None else keypoints - torch.tensor([x, y, 0], dtype=torch.float32),
    )


def _square(image: Image.Image, box: tuple[float, float, float, float]) -> tuple[int, int, int]:
    """Left, top and side of the part around a box; inside of the image where it fits."""
    x1, y1, x2, y2 = box
    longest = max(x2 - x1, y2 - y1)
    side = max(1, round(max(longest, min(max(_AROUND * longest, _LEAST), *image.size))))
    left, top = (
        min(max(round((low + high - side) / 2), 0), max(whole - side, 0))
        for low, high, whole in ((x1, x2, image.width), (y1, y2, image.height))
    )
    return left, top, side
