"""Large images tile by tile: each through the one way from images to detections, then put together again."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import Literal

import torch
from PIL import Image
from pydantic import Field

from fpn.detectors.full_images import FullImages
from fpn.detectors.prediction import (
    ImageReader,
    Prediction,
    Predictor,
    detect_batch,
    predict_read,
    preparing,
    read_ahead,
    reading_threads,
    tell_after,
)
from fpn.detectors.tile_merging import merge_tiles, placed
from fpn.errors import FpnError
from fpn.image_io import MAX_BYTES, MAX_PIXELS, ImageLike
from fpn.image_windows import ImageWindows, open_windows
from fpn.ops.tiles import Tile, tile_places
from fpn.sections import Section
from fpn.shapes import Size
from fpn.structures import Detections

# Longer side of what is seen of an image as a whole that is too large to be held.
_OVERVIEW = 4096


class Tiling(Section):
    """How a large image is cut into tiles, and what was found in them put together."""

    side: int = Field(default=1024, ge=32, le=16384, description="Side of a tile, pixels of the image.")
    overlap: float = Field(
        default=0.2,
        ge=0,
        le=0.75,
        description="Part of its side that a tile shares with the next one at least. Objects up to that size are seen "
        "whole by a tile; larger ones are put together of their pieces.",
    )
    whole: bool = Field(
        default=False, description="Look at the whole image, too, for objects larger than a tile (figure 1a)."
    )
    merge: Literal["nms", "vote"] = Field(
        default="nms",
        description="What becomes of an object that several tiles show: nms: the surest box of those not cut; vote: "
        "the mean of these, weighted by their scores.",
    )


def predict_tiled(
    predictor: Predictor,
    image: ImageLike,
    tiling: Tiling | None = None,
    *,
    batch_size: int = 8,
    progress: Callable[[float], None] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Detections:
    """Find objects in one large image.

    Args:
        predictor: what finds them in a tile, such as a detector or an exported file.
        image: as `fpn.image_io.read_image` takes it. A TIFF of more than `max_pixels` and a JPEG 2000 are read in parts
            (extra `large`), so that memory does not grow with the image.
        tiling: how it is cut; None: tiles of 1024 pixels with an overlap of 0.2.
        batch_size: tiles that go through the network together.
        progress: called with the part of the tiles that are done, 0 to 1.
        max_pixels: most pixels that are held at once.

    Returns:
        In pixels of the image, best first. The predictor's most detections are those of a tile.

    Raises:
        ImageError, DataNotFoundError, MissingExtraError: the image can't be read.
    """
    found = next(
        predict_tiled_images(
            predictor, [image], tiling or Tiling(), batch_size=batch_size, progress=progress, max_pixels=max_pixels
        )
    ).found
    if isinstance(found, FpnError):
        raise found
    return found


def predict_tiled_images(
    predictor: Predictor,
    images: Iterable[ImageLike],
    tiling: Tiling,
    *,
    batch_size: int = 8,
    progress: Callable[[float], None] | None = None,
    keep_images: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    full: FullImages | None = None,
) -> Generator[Prediction, None, None]:
    """Find objects in large images, one result an image in the order given; see `prediction.predict_images`.

    Args:
        predictor: what finds them in a tile.
        images: as `predict_tiled` takes one.
        tiling: how each is cut.
        batch_size: tiles that go through the network together; those of one image.
        progress: called with the number of images done, and the part of the one that is being looked at.
        keep_images: hand out the upright images; of one read in parts an overview, which is smaller.
        max_pixels: most pixels that are held at once.
        max_bytes: size of a file that is read at once.
        full: looks at what each tile gave.
    """
    limits = {"max_pixels": max_pixels, "max_bytes": max_bytes}
    tell: Callable[[float], None] = progress or (lambda done: None)
    for number, image in enumerate(images):
        pixel_range = predictor.preprocessor.config.pixel_range
        try:
            with open_windows(image, pixel_range=pixel_range, **limits) as windows:
                found = _look(predictor, windows, tiling, batch_size, partial(tell_after, tell, float(number)), full)
                prediction = Prediction(found, windows.size, windows.overview(_OVERVIEW) if keep_images else None)
        except FpnError as error:
            prediction = Prediction(error)
        tell(number + 1)
        yield prediction


def _look(
    predictor: Predictor,
    windows: ImageWindows,
    tiling: Tiling,
    batch_size: int,
    progress: Callable[[float], None],
    full: FullImages | None,
) -> Detections:
    places = tile_places(windows.size, tiling.side, tiling.overlap)
    reader = ImageReader(preparing(predictor), partial(_read_tile, windows))
    coming = read_ahead(places, reader, ahead=2 * batch_size, readers=reading_threads(predictor))
    found: list[tuple[Tile, Detections]] = []
    with closing(predict_read(predictor, coming, batch_size, lambda done: progress(done / len(places)))) as predictions:
        for place, each in zip(places, predictions, strict=True):
            if isinstance(each.found, FpnError):
                raise each.found
            found.append((place, each.found))
            if full is not None:
                full.look(each.found, f"the one at x {place.left}, y {place.top}")
    if tiling.whole and len(places) > 1:
        found.append((Tile(0, 0, *windows.size), _look_at_all(predictor, windows)))
    return merge_tiles(found, windows.size, vote=tiling.merge == "vote")


def _look_at_all(predictor: Predictor, windows: ImageWindows) -> Detections:
    """What is found in the image as a whole, in its own pixels."""
    overview = windows.overview(_OVERVIEW)
    (found,) = detect_batch(predictor, [preparing(predictor).prepare(overview)])
    return resized(found, Size(overview.height, overview.width), windows.size)


def resized(found: Detections, seen: Size, size: Size) -> Detections:
    """Detections in an image that was made smaller or larger, in pixels of the image as it is.

    Args:
        found: in the pixels of the image as it was seen.
        seen: its size.
        size: of the image as it is.
    """
    if seen == size:
        return found
    scale = found.boxes.new_tensor([size.width / seen.width, size.height / seen.height])
    masks = None if found.masks is None else found.masks.resized(size)
    return placed(found, masks, scale=scale, shift=torch.zeros_like(scale))


def _read_tile(windows: ImageWindows, tile: Tile) -> Image.Image:
    return windows.read(tile.box)
