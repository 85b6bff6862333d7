"""VOC's SegmentationObject: a PNG for each image, whose values are the numbers of the objects in its XML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fpn.data.formats.files import Folder
from fpn.data.limits import Limits
from fpn.errors import DataError
from fpn.ops.run_lengths import runs_of_mask
from fpn.shapes import Size
from fpn.structures.masks import code_of_runs

MASK_FOLDER = "SegmentationObject"
# A seam between objects, which belongs to none.
_VOID = 255


def read_masks(folder: Folder, stem: str, size: Size | None, limits: Limits) -> dict[int, dict[str, Any]]:
    """Object number -> run-length code, of those that have pixels; empty if the image has no such PNG.

    Args:
        folder: of the dataset.
        stem: of the image's name.
        size: as the XML file says it; None: it does not.
        limits: that are accepted.

    Raises:
        DataError: it is no PNG of numbers, or of another size than the image.
    """
    path = folder.root / MASK_FOLDER / f"{stem}.png"
    if not folder.has(path):
        return {}
    where = folder.relative(path)
    numbers = _numbers(path, where, limits)
    seen = Size(*numbers.shape)
    if size is not None and seen != size:
        raise DataError(
            f"{where}: {seen.width} x {seen.height} pixels, its image is said to have {size.width} x {size.height}. "
            "Save it in the image's size."
        )
    values = np.unique(numbers)
    return {int(k): code_of_runs(runs_of_mask(numbers == k), seen) for k in values if k not in (0, _VOID)}


def _numbers(path: Path, where: str, limits: Limits) -> np.ndarray:
    """(h, w) uint8."""
    try:
        if path.stat().st_size > limits.image_bytes:
            raise DataError(f"{where}: larger than the limit. Raise it (--max-file-size) if that is right.")
        with Image.open(path, formats=("PNG",)) as opened:
            if opened.height * opened.width > limits.image_pixels:
                raise DataError(f"{where}: {opened.width} x {opened.height}, more than the limit (--max-pixels)")
            if opened.mode not in ("P", "L"):
                raise DataError(
                    f"{where}: has colours ({opened.mode}) where each pixel should be the number of its object. Save "
                    "it with a palette or in grey."
                )
            return np.asarray(opened)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: can't be read ({error}). Export it again, or remove it.") from error
