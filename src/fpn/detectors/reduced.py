"""Reading a large JPEG at a half, a quarter or an eighth of its size, which its decoder does for little.

Close to a full decode, never equal to it: whoever needs a toolkit's own pixels does not read this way.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fpn.pictures import MAX_PIXELS, PictureLike, read_picture
from fpn.shapes import Size

# A reduced picture stays at least so many times as large as the network's on both sides, so that an antialiased resize
# does the rest of the work. Pillow's own `thumbnail` takes 2.
GAP = 2.0
_ORIENTATION = 0x0112
_LYING = (5, 6, 7, 8)


def read_reduced(source: PictureLike, enough: Callable[[Size], Size]) -> tuple[Image.Image, Size]:
    """Read a picture, a JPEG file at the smallest scale that leaves both sides long enough.

    Args:
        source: as `read_picture`; all but paths of JPEG files are read as that function reads them.
        enough: from the full height and width, as the picture stands upright, to those that must remain.

    Returns:
        The upright RGB picture, reduced or not, and the size that it has in full.

    Raises:
        DataNotFoundError, PictureError: as `read_picture`.
    """
    if isinstance(source, (str, os.PathLike)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(Path(source), formats=("JPEG",)) as opened:
                    full = _reduce(opened, enough)
                    if full is not None:
                        return read_picture(opened), full
        except (OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError, TypeError):
            pass  # no JPEG, or a damaged one: `read_picture` reads it or says what is wrong
    picture = read_picture(source)
    return picture, Size(picture.height, picture.width)


def _reduce(opened: Image.Image, enough: Callable[[Size], Size]) -> Size | None:
    """Ask the decoder for less and return the full upright size, or None where the file has to be read in full."""
    width, height = opened.size
    orientation = opened.getexif().get(_ORIENTATION, 1)
    lying = orientation in _LYING
    full = Size(width, height) if lying else Size(height, width)
    if width * height > MAX_PIXELS:
        return None
    remaining = enough(full)
    # Mode None: the decoder keeps the file's own colours, which `read_picture` resolves.
    opened.draft(None, (remaining.height, remaining.width) if lying else (remaining.width, remaining.height))
    # The sides are rounded up; a turned picture would have the incomplete row or column first instead of last.
    whole = width % opened.width == 0 and height % opened.height == 0
    return full if whole or orientation == 1 else None
