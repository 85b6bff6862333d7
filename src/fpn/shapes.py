"""The legend of dimension letters used in every signature, and the one type for a size.

B  images in a batch
L  pyramid levels
C  channels
H  rows of a map or image (height)
W  columns of a map or image (width)
A  anchors a cell
N  boxes (n, m, k in lower case where a signature holds several counts)
R  RoIs of all images of a batch together
S  side of a pooled RoI, in cells
K  classes, background not counted

Boxes are ``xyxy`` float32, 0-based and half-open: width = x2 - x1. Sizes are always (height, width).
"""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """An image's or a map's size in pixels or cells: always height first."""

    height: int
    width: int


def in_pixels(count: int) -> str:
    """A number of pixels as one reads it: "12288 pixels", "134 million pixels"."""
    return f"{count} pixels" if count < 1_000_000 else f"{count / 1e6:.0f} million pixels"
