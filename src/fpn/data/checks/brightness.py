"""Which values are black and white in images of more than 8 bits: the same for a whole dataset.

A camera of 12 bits fills a sixteenth of 16 bits, so its images come out nearly black; images that are stretched each by
itself differ in brightness although the scene did not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fpn.data.checks.images import ImageInfo, inspect_images
from fpn.data.dataset import Dataset
from fpn.data.issues import Finding
from fpn.image_io import has_wide_values
from fpn.image_values import PixelRange

# Bits that cameras have.
_DEPTHS = (8, 10, 12, 14, 16)
# Less of a range, and what is dark looks black.
_USED = 1 / 8
# Suffixes of formats that have 8 bits.
_EIGHT_BITS = (".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp")
# Headers that are read to find images of more than 8 bits, and how many of these are decoded.
_HEADERS, _DECODED = 2000, 200
# The same where only a warning depends on it.
_FEW = 8


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
    """`suggest_range` of up to 200 of a dataset's images of more than 8 bits; None if there are none."""
    wide = _wide([dataset.path(k) for k in range(len(dataset))], _HEADERS)
    return suggest_range(inspect_images(_spread(wide, _DECODED)))


def unfitting(name: str, paths: Sequence[str], pixel_range: PixelRange | None) -> str | None:
    """What is wrong with a range of which images use little, or which they leave.

    Args:
        name: what the message calls the images.
        paths: of which up to 8 are looked at, evenly spread, of those whose format can have more than 8 bits.
        pixel_range: the range; None: that of 16 bits, for images that have them.

    Returns:
        The message; None: nothing is wrong, or the images have 8 bits.
    """
    wide = _wide(paths, _FEW)
    looked_at = zip(wide, inspect_images(wide), strict=True)
    found = {path: info.values for path, info in looked_at if info.values is not None and (pixel_range or info.white)}
    if not found:
        return None
    values = found.values()
    black, white = pixel_range or (0.0, 65535.0)
    least, most = min(low for low, _ in values), max(high for _, high in values)
    used = max(0.0, min(most, white) - max(least, black)) / (white - black)
    if used >= _USED and most - white <= white - black:
        return None
    return (
        f"{name}: values of {least:g} to {most:g} are seen with {black:g} as black and {white:g} as white, so that "
        f"little can be told apart, such as in {next(iter(found))}"
    )


def _wide(paths: Sequence[str], most: int) -> list[str]:
    """Of up to `most` images whose format can have more than 8 bits, evenly spread, those that do."""
    able = [path for path in paths if not path.lower().endswith(_EIGHT_BITS)]
    return [path for path in _spread(able, most) if has_wide_values(path)]


def _spread(paths: Sequence[str], most: int) -> Sequence[str]:
    return paths[:: max(1, -(-len(paths) // most))]


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
