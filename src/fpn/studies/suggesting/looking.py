"""Has a detector look at each image once, or at it and its mirror image, and notes what it sees.

The descriptor of an image is made of the pyramid that its detections come from: how its coarser maps look on average,
and how the maps look at the middle of what was found, the unsure weighing most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fpn.data.dataset import Dataset
from fpn.detectors.prediction import (
    BATCHES_AHEAD,
    ImageReader,
    Predictor,
    ReadImage,
    detecting,
    enter,
    group_by_size,
    leave,
    preparing,
    read_ahead,
    reading_threads,
)
from fpn.errors import FpnError
from fpn.evaluation.unfinished import Unfinished
from fpn.features.extractor import Extractor
from fpn.ops.boxes import pairwise_iou
from fpn.preprocessing.preprocessor import Prepared
from fpn.structures import Detections, Features, ImageBatch, Level
from fpn.studies.suggesting.evidence import Evidence
from fpn.studies.suggesting.gain import unsureness

# Two looks at one object overlap at least by this.
_SAME_IOU = 0.5
# An object is read from the level on which it is about so many cells wide.
_CELLS = 4.0
# Of the global part: coarser maps say what is there, finer ones only how it is painted.
_COARSEST = 3


@dataclass(frozen=True, slots=True)
class _Seen:
    """An image that was read, and its mirror image where that is wanted."""

    image: ReadImage
    mirrored: Prepared | None


@dataclass(frozen=True)
class Looker:
    """Looks at images through a detector.

    Attributes:
        predictor: what finds objects.
        batch_size: images that go through the network together.
        mirror: look at each image and at its mirror image; the scores of what both show are averaged, and what only
            one shows keeps half of its score.
    """

    predictor: Predictor
    batch_size: int
    mirror: bool

    @property
    def window(self) -> int:
        """Images that are grouped by size and noted together."""
        return self.batch_size * BATCHES_AHEAD

    def look(
        self, dataset: Dataset, *, unfinished: Unfinished | None = None, progress: Callable[[int], None]
    ) -> list[Evidence]:
        """What is to be said of each image.

        Args:
            dataset: the images.
            unfinished: what an earlier look found, and where this one's findings are kept. Only whole windows are
                taken from it, so that the images which go through the network together are the same with and without a
                stop, and every bit of what is found is.
            progress: called with the number done so far.
        """
        known = {} if unfinished is None else unfinished.known
        lines = {number: Evidence.of_finding(known[number]) for number in self._whole_windows(len(dataset), set(known))}
        progress(len(lines))
        rest = [number for number in range(len(dataset)) if number not in lines]
        numbers = iter(rest)
        threads = reading_threads(self.predictor)
        with closing(read_ahead(rest, self._reader(dataset), ahead=self.window, readers=threads)) as coming:
            while window := list(islice(coming, self.window)):
                new = dict(zip(islice(numbers, len(window)), self._window(window), strict=True))
                lines.update(new)
                if unfinished is not None:
                    unfinished.keep(new, lambda number: lines[number].to_finding())
                progress(len(lines))
        return [lines[number] for number in range(len(dataset))]

    def _whole_windows(self, count: int, known: set[int]) -> list[int]:
        """Numbers of images whose window is known as a whole."""
        windows = [range(start, min(start + self.window, count)) for start in range(0, count, self.window)]
        return [number for window in windows if known.issuperset(window) for number in window]

    def _reader(self, dataset: Dataset) -> Callable[[int], _Seen]:
        preprocessor = preparing(self.predictor)
        reader: ImageReader[int] = ImageReader(preprocessor, dataset.image, keep=True)

        def read(number: int) -> _Seen:
            seen = reader(number)
            if not self.mirror or seen.image is None:
                return _Seen(replace(seen, image=None), None)
            turned = seen.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            return _Seen(replace(seen, image=None), preprocessor.prepare(turned))

        return read

    def _window(self, window: Sequence[_Seen]) -> list[Evidence]:
        lines: dict[int, Evidence] = {}
        ready: dict[int, Prepared] = {}
        for number, seen in enumerate(window):
            if isinstance(seen.image.prepared, FpnError):
                lines[number] = Evidence.unreadable(str(seen.image.prepared))
            else:
                ready[number] = seen.image.prepared
        for numbers in group_by_size(ready, bucket=self.predictor.bucket, batch_size=self.batch_size):
            mirrored = [window[number].mirrored for number in numbers]
            lines |= zip(numbers, self._batch([ready[number] for number in numbers], mirrored), strict=True)
        return [lines[number] for number in range(len(window))]

    def _batch(self, prepared: Sequence[Prepared], mirrored: Sequence[Prepared | None]) -> Iterator[Evidence]:
        images = enter(self.predictor, prepared)
        with watching(self.predictor) as view, detecting(self.predictor):
            found = self.predictor.detect(images)
        descriptors = view.describe(images, found)
        originals = leave(self.predictor, found, prepared)
        if self.mirror:
            originals = self._with_mirrored(originals, cast(Sequence[Prepared], mirrored))
        for image, each, descriptor in zip(prepared, originals, descriptors, strict=True):
            plain = Detections(each.boxes, each.scores, each.labels)
            yield Evidence(plain, image.frame.original, descriptor)

    def _with_mirrored(self, originals: Sequence[Detections], mirrored: Sequence[Prepared]) -> list[Detections]:
        with detecting(self.predictor):
            found = self.predictor.detect(enter(self.predictor, mirrored))
        others = leave(self.predictor, found, mirrored)
        pairs = zip(originals, others, mirrored, strict=True)
        return [agree(one, _turned(other, image.frame.original.width)) for one, other, image in pairs]


def _turned(found: Detections, width: int) -> Detections:
    x1, y1, x2, y2 = found.boxes.unbind(1)
    return replace(found, boxes=torch.stack((width - x2, y1, width - x1, y2), dim=1))


def agree(one: Detections, other: Detections) -> Detections:
    """Two looks at one image as one: scores are averaged, a look that does not show an object gives it 0.

    Args:
        one, other: boxes in the same pixels, best first.

    Returns:
        What either shows, with the boxes of `one` where both do; best first.
    """
    overlap = pairwise_iou(one.boxes, other.boxes) * (one.labels[:, None] == other.labels[None])
    scores, alone = one.scores / 2, torch.ones(len(other), dtype=torch.bool)
    for row in range(len(one)):
        free = overlap[row] * alone
        if len(other) and float(free.max()) >= _SAME_IOU:
            partner = int(free.argmax())
            scores[row] += other.scores[partner] / 2
            alone[partner] = False
    every = Detections(
        torch.cat((one.boxes, other.boxes[alone])),
        torch.cat((scores, other.scores[alone] / 2)),
        torch.cat((one.labels, other.labels[alone])),
    )
    return every[every.scores.argsort(descending=True, stable=True)]


@dataclass
class View:
    """The maps that a detector's last look at a batch went through.

    Attributes:
        levels: of the maps; none, where the detector does not show them.
        maps: the last ones.
    """

    levels: tuple[Level, ...] = ()
    maps: Features | None = None

    def describe(self, images: ImageBatch, found: Sequence[Detections]) -> list[Tensor]:
        """A (D,) descriptor of each image; D is 0 where the detector shows no maps.

        Args:
            images: the batch, in network pixels.
            found: what was found in it, in network pixels.
        """
        if self.maps is None:
            return [torch.zeros(0) for _ in found]
        maps = [self.maps[level.name].float().cpu() for level in self.levels]
        sizes = images.sizes.tolist()
        return [
            self._describe([each[row] for each in maps], sizes[row], found[row].to("cpu")) for row in range(len(found))
        ]

    def _describe(self, maps: Sequence[Tensor], size: Sequence[int], found: Detections) -> Tensor:
        """One image's maps (C, h, w), its height and width before padding, and its objects."""
        parts = []
        for level, each in list(zip(self.levels, maps, strict=True))[-_COARSEST:]:
            rows, columns = (-(-side // level.stride) for side in size)
            parts.append(each[:, :rows, :columns].mean(dim=(1, 2)))
        weights = unsureness(found.scores)
        objects = [weight * self._at(maps, box) for weight, box in zip(weights, found.boxes, strict=True)]
        total = float(weights.sum())
        parts.append(torch.stack(objects).sum(dim=0) / total if total > 0 else torch.zeros_like(parts[-1]))
        return torch.cat(parts)

    def _at(self, maps: Sequence[Tensor], box: Tensor) -> Tensor:
        """The cell (C,) in the middle of a box, on the level that fits its size."""
        x1, y1, x2, y2 = box.tolist()
        side = max(((x2 - x1) * (y2 - y1)) ** 0.5, 1.0)
        fit = [abs(np.log2(side / (_CELLS * level.stride))) for level in self.levels]
        level = int(np.argmin(fit))
        height, width = maps[level].shape[1:]
        stride = self.levels[level].stride
        row, column = int((y1 + y2) / 2 / stride), int((x1 + x2) / 2 / stride)
        return maps[level][:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]


@contextmanager
def watching(predictor: Predictor) -> Iterator[View]:
    """Keep the maps that the next look goes through. What is exported or compiled may show none."""
    extractor = _extractor(predictor)
    if extractor is None:
        yield View()
        return
    view = View(extractor.levels)

    def keep(_: nn.Module, __: object, emitted: Features) -> None:
        view.maps = emitted

    handle = extractor.register_forward_hook(keep)
    try:
        yield view
    finally:
        handle.remove()


def _extractor(predictor: Predictor) -> Extractor | None:
    if not isinstance(predictor, nn.Module):
        return None
    return next((part for part in predictor.modules() if isinstance(part, Extractor)), None)
