"""A labelled dataset as a few flat arrays: what 100 000 images cost is bytes, not Python objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fpn.data.dataset import Dataset
from fpn.data.formats.segmentation import outline_of, unpack
from fpn.data.limits import Limits
from fpn.errors import DataError, DataNotFoundError, ImageError
from fpn.image_io import image_size, read_image, read_reduced
from fpn.image_values import PixelRange
from fpn.shapes import Size
from fpn.structures import Classes, Masks, Skeleton, Targets


@dataclass(frozen=True, slots=True)
class Texts:
    """Many byte strings in one: `texts[i]` is `data[starts[i]:starts[i + 1]]`."""

    data: Tensor
    starts: Tensor

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Texts:
        """Join byte strings."""
        starts = torch.tensor([0, *map(len, texts)], dtype=torch.int64).cumsum(0)
        joined = bytearray(b"".join(texts))
        data = torch.frombuffer(joined, dtype=torch.uint8) if joined else torch.zeros(0, dtype=torch.uint8)
        return cls(data, starts)

    def __getitem__(self, index: int) -> bytes:
        start, end = self.starts[index : index + 2].tolist()
        return self.data[start:end].numpy().tobytes()


@dataclass(frozen=True, slots=True)
class Table:
    """N images with M objects. Tensors, because torch hands these to any kind of worker process without a copy.

    Attributes:
        names: N image paths relative to the dataset's root.
        image_ids: (N,) int64.
        sizes: (N, 2) int32 height and width; 0 where not known yet, filled in when first asked for.
        starts: (N + 1,) int64, image i has the objects starts[i] to starts[i + 1].
        boxes: (M, 4) float32 xyxy, in pixels or, if `fractions`, in parts of the image's width and height.
        labels: (M,) int64 in 0..K-1.
        ignore: (M,) bool.
        areas: (M,) float64, as the file says; NaN where it does not.
        segmentations: M outlines as `segmentation.pack` makes them, or None if no object has one.
        keypoints: (M, J, 3) float32 x, y, visibility, or None if the dataset has no skeleton.
        fractions: whether boxes, polygons and keypoints are parts of the image, as YOLO writes them.
    """

    names: Texts
    image_ids: Tensor
    sizes: Tensor
    starts: Tensor
    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    areas: Tensor
    segmentations: Texts | None
    keypoints: Tensor | None = None
    fractions: bool = False


class TableDataset(Dataset):
    """Images in files with their objects in a `Table`."""

    def __init__(
        self,
        table: Table,
        *,
        classes: Classes,
        root: Path,
        name: str,
        dropped: Sequence[str],
        clipped: int,
        limits: Limits | None = None,
        skeleton: Skeleton | None = None,
        pixel_range: PixelRange | None = None,
        remarks: Sequence[str] = (),
        skip_unreadable: bool = False,
    ) -> None:
        self.skeleton = skeleton
        self.table, self.classes, self.root, self.name = table, classes, root, name
        self.dropped, self.clipped, self.limits = list(dropped), clipped, limits or Limits()
        self.pixel_range, self.remarks = pixel_range, list(remarks)
        self.skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        return len(self.table.image_ids)

    def image_id(self, index: int) -> int:
        """See `Dataset.image_id`."""
        return int(self.table.image_ids[self._number(index)])

    def path(self, index: int) -> str:
        """See `Dataset.path`."""
        return str(self.root / os.fsdecode(self.table.names[self._number(index)]))

    def size(self, index: int) -> Size:
        """Height and width as the annotation says, else from the file's header (read once).

        With `skip_unreadable` 1 x 1 of an image that can't be read, which whoever reads it leaves out.
        """
        row = self.table.sizes[self._number(index)]
        if int(row[0]) == 0:
            row.copy_(torch.tensor(self._seen_size(self.path(index))))
        return Size(*row.tolist())

    def _seen_size(self, path: str) -> tuple[int, int]:
        try:
            return image_size(path, max_bytes=self.limits.image_bytes)
        except (ImageError, DataNotFoundError):
            if not self.skip_unreadable:
                raise
            return 1, 1

    def image(self, index: int) -> Image.Image:
        """See `Dataset.image`."""
        return read_image(self.path(index), **self._reading())

    def reduced(self, index: int, min_size: Callable[[Size], Size]) -> tuple[Image.Image, Size]:
        """See `Dataset.reduced`."""
        return read_reduced(self.path(index), min_size, **self._reading())

    def _reading(self) -> dict[str, Any]:
        limits = self.limits
        return {
            "pixel_range": self.pixel_range,
            "max_pixels": limits.image_pixels,
            "max_bytes": limits.image_bytes,
        }

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        """See `Dataset.targets`. An object without an outline gets its filled box as mask."""
        objects = self._objects(index)
        boxes = self._boxes(index, objects)
        table = self.table
        outlines = self._masks(index, objects, boxes) if masks and table.segmentations is not None else None
        # Clones: who changes a sample must not change the table.
        labels, ignore = table.labels[objects].clone(), table.ignore[objects].clone()
        return Targets(boxes, labels, ignore, outlines, self._keypoints(index, objects))

    def unoutlined(self, index: int) -> int | None:
        """See `Dataset.unoutlined`. What is ignored teaches no mask, and is not looked at."""
        if (texts := self.table.segmentations) is None:
            return None
        objects = self._objects(index)
        counted = (~self.table.ignore[objects]).numpy()
        boxes = self._masks(index, objects, self._boxes(index, objects)).boxes().numpy()
        outlined = np.diff(texts.starts[objects.start : objects.stop + 1].numpy()) > 0
        empty = counted & outlined & ~(boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if empty.any():
            raise DataError(
                f"{self.path(index)}: object {int(empty.argmax()) + 1} has an outline without a pixel in its image: "
                "less than three points, no area, or all of it outside"
            )
        return int((counted & ~outlined).sum())

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """See `Dataset.annotations`; with the file's own areas and outlines."""
        records, objects = super().annotations(index), self._objects(index)
        for record, area in zip(records, self.table.areas[objects].tolist(), strict=True):
            if area == area:
                record["area"] = area
        if self.table.segmentations is not None:
            for record, outline in zip(records, self._outlines(index, objects), strict=True):
                if outline is not None:
                    record["segmentation"] = outline
        return records

    def _objects(self, index: int) -> slice:
        number = self._number(index)
        start, end = self.table.starts[number : number + 2].tolist()
        return slice(start, end)

    def _boxes(self, index: int, objects: slice) -> Tensor:
        boxes = self.table.boxes[objects].clone()
        if self.table.fractions and len(boxes):
            height, width = self.size(index)
            boxes *= torch.tensor([width, height, width, height])
        return boxes

    def _outlines(self, index: int, objects: slice) -> list[Any]:
        texts = self.table.segmentations
        assert texts is not None
        height, width = self.size(index)
        scale = (width, height) if self.table.fractions else None
        return [unpack(texts[number], scale=scale) for number in range(objects.start, objects.stop)]

    def _keypoints(self, index: int, objects: slice) -> Tensor | None:
        if self.table.keypoints is None:
            return None
        keypoints = self.table.keypoints[objects].clone()
        if self.table.fractions and len(keypoints):
            height, width = self.size(index)
            keypoints *= torch.tensor([width, height, 1])
        return keypoints

    def _masks(self, index: int, objects: slice, boxes: Tensor) -> Masks:
        texts, size = self.table.segmentations, self.size(index)
        assert texts is not None
        scale = (size.width, size.height) if self.table.fractions else None
        outlines = []
        for number, box in zip(range(objects.start, objects.stop), boxes.tolist(), strict=True):
            try:
                outlines.append(outline_of(texts[number], box, size, scale))
            except (ValueError, TypeError, OverflowError) as error:
                where = f"{self.path(index)}: object {number - objects.start + 1}"
                raise DataError(f"{where}: broken segmentation ({error})") from error
        return Masks.of_outlines(outlines, size)
