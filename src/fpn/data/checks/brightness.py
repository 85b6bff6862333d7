"""Which values are black and white in images of more than 8 bits: the same for a whole dataset.

A camera of 12 bits fills a sixteenth of 16 bits, so its images come out nearly black; images that are stretched each by
itself differ in brightness although the scene did not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fpn.data.checks.images import ImageInfo, inspect_images
from fpn.data.dataset import Dataset
from fpn.data.issues import Finding
from fpn.image_io import PixelRange

# Bits that cameras have.
_DEPTHS = (8, 10, 12, 14, 16)
# Images that are looked at first: where none of them has more than 8 bits, the dataset is taken to have none.
_FIRST, _MOST = 8, 200


def suggest_range(infos: Sequence[ImageInfo]) -> PixelRange | None:
    """The range that fits all of a dataset's images of more than 8 bits; None if there are none.

    For 16 bits: from 0 to the end of the fewest bits that hold all values; for others: the least and the most of all.
    """
    wide = [info for info in infos if info.values is not None]
    if not wide:
        return None
    low = min(info.values[0] for info in wide if info.values)
    high = max(info.values[1] for info in wide if info.values)
    if all(info.white is not None for info in wide):
        return 0.0, float(next(2**bits - 1 for bits in _DEPTHS if high < 2**bits))
    return (low, high) if low < high else None


def find_pixel_range(dataset: Dataset) -> PixelRange | None:
    """`suggest_range` of up to 200 images of a dataset, evenly spread; None where the first few have 8 bits."""
    first = inspect_images([dataset.path(k) for k in _spread(len(dataset), _FIRST)])
    if suggest_range(first) is None:
        return None
    return suggest_range(inspect_images([dataset.path(k) for k in _spread(len(dataset), _MOST)]))


def _spread(count: int, most: int) -> list[int]:
    return list(range(0, count, max(1, -(-count // most))))


def check_brightness(infos: Mapping[str, ImageInfo]) -> Iterator[Finding]:
    """Images that training would see nearly black, or each at a brightness of its own."""
    fitting = suggest_range(list(infos.values()))
    for name, info in infos.items():
        if info.deep_colour:
            where = (
                f"{name}: 16 bits a channel in colour, of which only the lower are used: read as 8 it is nearly black"
            )
            yield Finding("image-dark", where, name)
        if info.values is None or fitting is None:
            continue
        low, high = info.values
        declare = f"pixel_range=({fitting[0]:g}, {fitting[1]:g}) would fit the dataset"
        if info.white is None:
            told = f"{name}: values {low:g} to {high:g} of more than 16 bits, stretched by itself; {declare}"
            yield Finding("image-dark", told, name)
        elif fitting[1] < info.white:
            told = f"{name}: values {low:g} to {high:g} in a range of 0 to {info.white:g}, too dark; {declare}"
            yield Finding("image-dark", told, name)
