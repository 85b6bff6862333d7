"""Detections in a dataset's large images, looked at tile by tile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fpn.data.dataset import Dataset
from fpn.detectors.full_images import FullImages
from fpn.detectors.prediction import Predictor
from fpn.detectors.tiling import Tiling, predict_tiled_images
from fpn.errors import FpnError
from fpn.evaluation.found import Found
from fpn.evaluation.unfinished import Unfinished
from fpn.image_io import ImageLike
from fpn.image_windows import is_read_in_parts
from fpn.runtime.waiting import considerate


@considerate()
def find_in_tiles(
    detector: Predictor,
    dataset: Dataset,
    tiling: Tiling,
    *,
    batch_size: int,
    skip_unreadable: bool = False,
    progress: Callable[[int], None] | None = None,
    unfinished: Unfinished | None = None,
    full: FullImages | None = None,
) -> Found:
    """Detect in every image of a dataset, tile by tile; arguments as of `find_objects`, but `tiling` and `full`.

    Args:
        tiling: how images are cut.
        full: looks at what each tile gave.

    Raises:
        ImageError, DataNotFoundError, MissingExtraError: an image can't be read.
    """
    found = Found()
    if unfinished is not None:
        found.take(unfinished.known, proposals=False)
    numbers = [number for number in range(len(dataset)) if number not in found.detections]
    coming = predict_tiled_images(
        detector, (_source(dataset, number) for number in numbers), tiling, batch_size=batch_size, full=full
    )
    for number, each in zip(numbers, coming, strict=True):
        if not isinstance(each.found, FpnError):
            found.detections[number] = each.found
            if unfinished is not None:
                unfinished.keep([number], found.finding)
        elif skip_unreadable:
            found.unreadable[number] = str(each.found)
        else:
            raise each.found
        if progress is not None:
            progress(len(found.detections) + len(found.unreadable))
    return found


def _source(dataset: Dataset, number: int) -> ImageLike:
    """The file of an image that is read in parts, else the image itself, as the dataset reads it."""
    path = Path(dataset.path(number))
    return path if is_read_in_parts(path) else dataset[number].image
