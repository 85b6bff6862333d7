"""What a dataset is, wherever its images come from: labelled files, drawn scenes, or a part of either."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsIndex

import torch
from PIL import Image

from fpn.errors import DataError
from fpn.image_io import read_image
from fpn.image_values import PixelRange
from fpn.ops.boxes import xyxy_to_xywh
from fpn.shapes import Size
from fpn.structures import OBJECT, Classes, Skeleton, Targets
from fpn.structures.keypoints import map_keypoints


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    Attributes:
        image: upright RGB.
        targets: its objects, in pixels of `image`.
        image_id: the id that the user's files gave it (COCO), or 1.. in order.
        path: where it was read from; a name such as "scene 17" if it was drawn.
        skeleton: what the keypoints of its objects are; None: they have none.
    """

    image: Image.Image
    targets: Targets
    image_id: int
    path: str
    skeleton: Skeleton | None = None


class Dataset(ABC):
    """Labelled images by index, in a fixed order. Cheap to hold and to send to loader workers.

    A kind of dataset says how long it is and where image, size and objects number i come from; everything else is
    built on that here.

    Attributes:
        classes: the K class names with the ids that the user's files gave them.
        name: short name for logs and tables, such as "bccd/trainval".
        root: the folder that holds everything of this dataset.
        dropped: one line for each invalid box that was left out (`drop_invalid=True`).
        clipped: how many boxes reached more than two pixels out of their image and were cut at its edge.
        skeleton: what the keypoints of its objects are; None: it has none.
        pixel_range: which values are black and white in images of more than 8 bits. A model that learned from them
            has to see others so, too.
        remarks: what was taken for something else than it is written, such as names of files of another system.
    """

    classes: Classes
    name: str
    root: Path
    dropped: Sequence[str] = ()
    clipped: int = 0
    skeleton: Skeleton | None = None
    pixel_range: PixelRange | None = None
    remarks: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def image_id(self, index: int) -> int:
        """The original id of image number `index`."""

    @abstractmethod
    def path(self, index: int) -> str:
        """Where image number `index` is."""

    @abstractmethod
    def size(self, index: int) -> Size:
        """Height and width of the upright image, without decoding it."""

    @abstractmethod
    def targets(self, index: int, *, masks: bool = False) -> Targets:
        """The objects of image number `index` in original pixels, without decoding it.

        Args:
            index: number of the image.
            masks: bring the masks, too, where the dataset has them. Keypoints always come where it has them.
        """

    def unoutlined(self, index: int) -> int | None:
        """How many objects of image number `index` have no outline, so that their boxes stand in as masks.

        None: the dataset has no masks.

        Raises:
            DataError: an outline is broken, of another size than its image, or without a pixel in it.
        """
        return None if self.targets(index, masks=True).masks is None else 0

    def image(self, index: int) -> Image.Image:
        """Image number `index`, upright RGB."""
        return read_image(self.path(index), pixel_range=self.pixel_range)

    def reduced(self, index: int, min_size: Callable[[Size], Size]) -> tuple[Image.Image, Size]:
        """Image number `index`, at a half, a quarter or an eighth where its file allows that, and its full size.

        Args:
            index: number of the image.
            min_size: from the full size to what must remain.
        """
        image = self.image(index)
        return image, Size(image.height, image.width)

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """The objects of one image as COCO records without `id` and `image_id`."""
        targets = self.targets(index)
        boxes, labels, ignore = targets.boxes.double(), targets.labels.tolist(), targets.ignore.tolist()
        xywh = xyxy_to_xywh(boxes).tolist()
        records: list[dict[str, Any]] = [
            {"category_id": self.classes.ids[label], "bbox": box, "area": box[2] * box[3], "iscrowd": int(skip)}
            for box, label, skip in zip(xywh, labels, ignore, strict=True)
        ]
        if targets.keypoints is not None:
            for record, points in zip(records, targets.keypoints, strict=True):
                record["keypoints"], record["num_keypoints"] = points.flatten().tolist(), int((points[:, 2] > 0).sum())
        return records

    def __getitem__(self, index: SupportsIndex) -> Sample:
        return self.sample(self._number(index))

    def sample(self, index: int, *, min_size: Callable[[Size], Size] | None = None, masks: bool = False) -> Sample:
        """Image number `index` with its objects.

        Args:
            index: number of the image.
            min_size: as in `reduced`; the objects are then in pixels of the reduced image. None: the full image.
            masks: as in `targets`.

        Raises:
            DataError: the image has another size than its annotation says.
        """
        path, said = self.path(index), self.size(index)
        if min_size is None:
            image = self.image(index)
            full = Size(image.height, image.width)
        else:
            image, full = self.reduced(index, min_size)
        if full != said:
            raise DataError(
                f"{path}: the image is {full.width} x {full.height} but its annotation says {said.width} x "
                f"{said.height}, so its boxes can't be trusted. If the image was resized or rotated, label it again "
                "or restore it; if only the size is wrong, correct it in the annotation."
            )
        targets = self.targets(index, masks=masks)
        factor = 2 ** round(math.log2(max(full) / max(image.size)))
        if factor > 1:
            targets = _reduced_targets(targets, factor, Size(image.height, image.width))
        return Sample(image, targets, self.image_id(index), path, self.skeleton)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def _number(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, there is no number {number}")
        return number % len(self)

    def subset(self, indices: Iterable[SupportsIndex], *, name: str | None = None) -> Dataset:
        """The images with these numbers, in this order, with their original ids.

        Args:
            indices: numbers of the images.
            name: what logs and tables call it; None: as the whole.
        """
        return Subset(self, [self._number(index) for index in indices], name or self.name)

    def with_range(self, pixel_range: PixelRange) -> Dataset:
        """The same images, seen with these values as black and white where they have more than 8 bits."""
        other = copy(self)
        other.pixel_range = pixel_range
        return other

    def without_classes(self) -> Dataset:
        """The same images, whose objects are all of one class, "object"."""
        return Unclassified(self)

    def coco(self) -> dict[str, Any]:
        """The ground truth as a COCO json with the original ids; `ignore` objects have iscrowd 1."""
        images, annotations = [], []
        for index in range(len(self)):
            image_id, size = self.image_id(index), self.size(index)
            name = _relative(self.path(index), self.root)
            images.append({"id": image_id, "file_name": name, "height": size.height, "width": size.width})
            annotations += [{**record, "image_id": image_id} for record in self.annotations(index)]
        for number, record in enumerate(annotations, start=1):
            record["id"] = number
        return {"images": images, "annotations": annotations, "categories": _categories(self.classes, self.skeleton)}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self)} images, {len(self.classes)} classes>"


class Subset(Dataset):
    """Some images of another dataset."""

    def __init__(self, whole: Dataset, numbers: Sequence[int], name: str) -> None:
        self.whole = whole
        # A tensor, not a list: workers share it, and a long one costs 8 bytes an entry.
        self.numbers = torch.tensor(numbers, dtype=torch.int64)
        self.classes, self.name, self.root = whole.classes, name, whole.root
        self.dropped, self.clipped, self.skeleton = whole.dropped, whole.clipped, whole.skeleton
        self.pixel_range, self.remarks = whole.pixel_range, whole.remarks

    def __len__(self) -> int:
        return len(self.numbers)

    def with_range(self, pixel_range: PixelRange) -> Dataset:
        """See `Dataset.with_range`."""
        return Subset(self.whole.with_range(pixel_range), self.numbers.tolist(), self.name)

    def image_id(self, index: int) -> int:
        """See `Dataset.image_id`."""
        return self.whole.image_id(self._inner(index))

    def path(self, index: int) -> str:
        """See `Dataset.path`."""
        return self.whole.path(self._inner(index))

    def size(self, index: int) -> Size:
        """See `Dataset.size`."""
        return self.whole.size(self._inner(index))

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        """See `Dataset.targets`."""
        return self.whole.targets(self._inner(index), masks=masks)

    def unoutlined(self, index: int) -> int | None:
        """See `Dataset.unoutlined`."""
        return self.whole.unoutlined(self._inner(index))

    def image(self, index: int) -> Image.Image:
        """See `Dataset.image`."""
        return self.whole.image(self._inner(index))

    def reduced(self, index: int, min_size: Callable[[Size], Size]) -> tuple[Image.Image, Size]:
        """See `Dataset.reduced`."""
        return self.whole.reduced(self._inner(index), min_size)

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """See `Dataset.annotations`."""
        return self.whole.annotations(self._inner(index))

    def _inner(self, index: int) -> int:
        return int(self.numbers[self._number(index)])


class Unclassified(Subset):
    """All images of another dataset, whose objects are all of one class."""

    def __init__(self, whole: Dataset) -> None:
        super().__init__(whole, range(len(whole)), whole.name)
        self.classes = OBJECT

    def with_range(self, pixel_range: PixelRange) -> Dataset:
        """See `Dataset.with_range`."""
        return Unclassified(self.whole.with_range(pixel_range))

    def without_classes(self) -> Dataset:
        """See `Dataset.without_classes`: it has none to lose."""
        return self

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        """See `Dataset.targets`."""
        found = super().targets(index, masks=masks)
        return replace(found, labels=torch.zeros_like(found.labels))

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """See `Dataset.annotations`."""
        return [{**record, "category_id": OBJECT.ids[0]} for record in super().annotations(index)]


def _reduced_targets(targets: Targets, factor: int, size: Size) -> Targets:
    """The objects in an image decoded at 1 / factor of its size; its sides are rounded up."""
    scale = (1 / factor, 1 / factor)
    masks, keypoints = targets.masks, targets.keypoints
    return replace(
        targets,
        boxes=targets.boxes / factor,
        masks=None if masks is None else masks.mapped(scale=scale, offset=(0.0, 0.0), size=size),
        keypoints=None if keypoints is None else map_keypoints(keypoints, scale=scale, offset=(0.0, 0.0)),
    )


def _categories(classes: Classes, skeleton: Skeleton | None) -> list[Mapping[str, Any]]:
    fields = {} if skeleton is None else skeleton.to_coco()
    return [{"id": number, "name": name, **fields} for number, name in zip(classes.ids, classes.names, strict=True)]


def _relative(path: str, root: Path) -> str:
    try:
        return Path(path).relative_to(root).as_posix()
    except ValueError:
        return path
