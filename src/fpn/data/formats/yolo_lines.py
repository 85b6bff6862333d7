"""One line of a YOLO label file: what its numbers mean, or why that can't be said."""

from __future__ import annotations

from typing import NamedTuple

from fpn.data.formats.files import shorten
from fpn.data.formats.geometry import Corners, bounds_of

EXPECTED = "A line is: class centre-x centre-y width height, or class x1 y1 x2 y2 x3 y3 ..., in fractions."
# How far out of its image a box or outline may reach and still be a slip of the hand, in fractions of the image.
_FAR = 1.0


class Line(NamedTuple):
    """A class index as written, a box xyxy in fractions, its outline, and what stands behind the box of a pose.

    `confidence` is a fifth number, which a model writes and a label has not.
    """

    label: float
    box: Corners
    polygon: list[float] | None
    points: list[float] | None
    confidence: float | None = None


def read_line(text: str, keypoints: tuple[int, int] | None) -> Line:
    """Read a line.

    Args:
        text: the line.
        keypoints: how many a line holds, of how many numbers each, as the dataset declares; None: none.

    Raises:
        ValueError: it is no such line, or may mean two things; the caller knows where it stands.
    """
    words = text.split()
    try:
        index, *values = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"{shorten(text)} holds something that is not a number. {EXPECTED}") from None
    if keypoints is not None:
        return _pose(index, values, keypoints)
    if len(values) == 4:
        return Line(index, _near(_corners(values)), None, None)
    if len(values) == 5 and 0 <= values[4] <= 1 and _in_image(values):
        return Line(index, _corners(values[:4]), None, None, values[4])
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"{len(values)} numbers after the class. {EXPECTED}")
    if _is_tracked(words[1:], values):
        raise ValueError(
            f"{shorten(text)} may be a box with a confidence and a track, or a triangle. Remove the last two numbers, "
            "or close the triangle with a fourth point."
        )
    return Line(index, _near(bounds_of([values])), values, None)


def _pose(index: float, values: list[float], keypoints: tuple[int, int]) -> Line:
    wanted = 4 + keypoints[0] * keypoints[1]
    if len(values) not in (4, wanted):
        raise ValueError(
            f"{len(values)} numbers after the class; kpt_shape [{keypoints[0]}, {keypoints[1]}] says {wanted}: a box "
            "and its keypoints. Correct the line or kpt_shape."
        )
    return Line(index, _near(_corners(values[:4])), None, values[4:])


def keypoints_of(line: Line, numbers: int) -> list[float]:
    """x, y, visibility of each keypoint of a line, of which it holds two or three numbers; none of a box alone."""
    points = line.points or []
    if numbers == 3:
        return points
    # Without a visibility a keypoint that is not labelled lies at 0, 0.
    pairs = zip(points[0::2], points[1::2], strict=True)
    return [number for x, y in pairs for number in (x, y, 2.0 if x > 0 or y > 0 else 0.0)]


def _near(box: Corners) -> Corners:
    """A box that lies in the image and yet far out of it; what is wrong in other ways is told with all others'."""
    meets = box[0] < 1 and box[1] < 1 and box[2] > 0 and box[3] > 0
    if meets and (min(box) < -_FAR or max(box) > 1 + _FAR):
        shown = ", ".join(f"{value:.6g}" for value in box)
        raise ValueError(
            f"box ({shown}) reaches far out of the image (YOLO boxes are fractions from 0 to 1, not pixels)"
        )
    return box


def _is_tracked(words: list[str], values: list[float]) -> bool:
    """Whether six numbers may be a box, a confidence of 0..1 and a track's whole number."""
    return len(values) == 6 and words[5].isdecimal() and 0 <= values[4] <= 1 and _in_image(values)


def _in_image(values: list[float]) -> bool:
    """Whether four numbers are a box of a YOLO line."""
    box = _corners(values[:4])
    return 0 < values[2] <= 1 and 0 < values[3] <= 1 and min(box) >= -0.01 and max(box) <= 1.01


def looks_like_pose(line: Line) -> bool:
    """Whether an outline's first four numbers are a box in which all its other points lie, as keypoints do."""
    values = line.polygon
    if values is None or len(values) < 8:
        return False
    x1, y1, x2, y2 = _corners(values[:4])
    points = list(zip(values[4::2], values[5::2], strict=True))
    inside = [x1 <= x <= x2 and y1 <= y <= y2 for x, y in points]
    # A keypoint that can't be seen is written as 0 0.
    return (
        min(x1, y1) >= -0.01
        and max(x2, y2) <= 1.01
        and all(lies or point == (0, 0) for lies, point in zip(inside, points, strict=True))
    )


def _corners(values: list[float]) -> Corners:
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
