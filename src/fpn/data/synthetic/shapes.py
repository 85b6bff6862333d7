"""The six shapes of drawn scenes: outlines, and how much of each pixel they cover."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disc", "square", "triangle", "star", "cross", "ring")

# Radius of a ring's hole, and half the width of a cross's arms, when the outline reaches from -1 to 1.
_HOLE = 0.55
_ARM = 0.34


@dataclass(frozen=True, slots=True)
class Patch:
    """A piece of an image and how much of each of its pixels an object covers.

    Attributes:
        top, left: where the piece lies in the image; may be negative.
        coverage: (h, w) uint8, 0 (outside) to 255 (inside); what is >= 128 counts as the object's own.
    """

    top: int
    left: int
    coverage: np.ndarray

    def clipped(self, height: int, width: int) -> Patch:
        """The part inside an image of that size; may be empty."""
        rows, columns = self.coverage.shape
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + rows, height), min(self.left + columns, width)
        inside = self.coverage[top - self.top : max(bottom - self.top, 0), left - self.left : max(right - self.left, 0)]
        return Patch(top, left, inside)

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the piece occupies (clip it first)."""
        rows, columns = self.coverage.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)


@dataclass(frozen=True, slots=True)
class Pose:
    """How a shape stands in the image.

    Attributes:
        shape: one of `SHAPES`.
        x, y: the centre, in pixels.
        extent: the longer side of the box around the whole shape, in pixels.
        angle: rotation in radians.
        stretch: width over height before the rotation.
    """

    shape: str
    x: float
    y: float
    extent: float
    angle: float
    stretch: float

    def patch(self, *, inset: float = 0.0) -> Patch:
        """Draw the shape.

        Args:
            inset: how far the outline is drawn inwards, 0 to 0.5 of the half extent; a ring's hole grows by as much.
        """
        outer = self._place(_outer(self.shape) * (1 - inset))
        left, top = (math.floor(low) for low in outer.min(axis=0))
        right, bottom = (math.ceil(high) for high in outer.max(axis=0))
        # Finer for small ones, where a pixel is a large part of the object.
        fine = 8 if self.extent < 32 else 4 if self.extent < 128 else 2
        canvas = Image.new("L", ((right - left) * fine, (bottom - top) * fine), 0)
        draw = ImageDraw.Draw(canvas)
        draw.polygon(_subpixels(outer, left, top, fine), fill=255)
        if self.shape == "ring":
            draw.polygon(_subpixels(self._place(_circle() * (_HOLE + inset)), left, top, fine), fill=0)
        return Patch(top, left, np.asarray(canvas.reduce(fine)))

    def corners(self, *, inset: float = 0.0) -> np.ndarray:
        """(4, 2) x, y of the outline's uppermost, rightmost, lowest and leftmost point, in pixels.

        Args:
            inset: how far each is moved towards the centre, as a part of the way there.
        """
        outer = self._place(_outer(self.shape))
        x, y = outer.T
        ends = outer[[y.argmin(), x.argmax(), y.argmax(), x.argmin()]]
        moved: np.ndarray = ends + inset * (np.array([self.x, self.y]) - ends)
        return moved

    def _place(self, points: np.ndarray) -> np.ndarray:
        """Unit outline (n, 2) -> image coordinates."""
        turn = self._transform()
        reach = np.ptp(_outer(self.shape) @ turn, axis=0).max()
        placed: np.ndarray = points @ turn * (self.extent / reach) + (self.x, self.y)
        return placed

    def _transform(self) -> np.ndarray:
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        wide = math.sqrt(self.stretch)
        return np.array([[wide * cosine, wide * sine], [-sine / wide, cosine / wide]])


def _subpixels(points: np.ndarray, left: int, top: int, fine: int) -> list[float]:
    # Pillow counts from pixel centres, we from pixel corners: half a subpixel apart.
    corners: list[float] = ((points - (left, top)) * fine - 0.5).ravel().tolist()
    return corners


def _outer(shape: str) -> np.ndarray:
    return _OUTLINES[shape]


def _circle(corners: int = 64) -> np.ndarray:
    return _regular(corners, 0.0)


def _regular(corners: int, start: float) -> np.ndarray:
    angle = start + np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _star() -> np.ndarray:
    points = _regular(10, -math.pi / 2)
    points[1::2] *= 0.45
    return points


def _cross() -> np.ndarray:
    arm = np.array([[-_ARM, -1.0], [_ARM, -1.0], [_ARM, -_ARM]])
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    turned = [arm]
    for _ in range(3):
        turned.append(turned[-1] @ quarter)
    return np.concatenate(turned)


_OUTLINES = {
    "disc": _circle(),
    "square": _regular(4, math.pi / 4),
    "triangle": _regular(3, -math.pi / 2),
    "star": _star(),
    "cross": _cross(),
    "ring": _circle(),
}
