"""Images that are there twice: byte for byte, saved again, or the same scene a little shifted.

Each image has a fingerprint of 64 bits that say where it gets brighter from left to right (dHash). Images whose
fingerprints differ in few bits are candidates, and their thumbnails decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fpn.data.checks.images import THUMBNAIL, ImageInfo

# Correlation of two thumbnails from which images are said to be alike. In BCCD, whose blood smears were in part
# photographed twice, such pairs have 0.91 and more, all others less than 0.6; in coco128 the highest is 0.75.
ALIKE = 0.85
# Up to so many images each is compared with each, also shifted: 25 times 2 million comparisons of 64 bits.
COMPARED_SHIFTED = 2000
_SHIFTED_BITS = 16
# Above, fingerprints that differ in at most 7 bits, which therefore agree in one of 8 parts.
_BITS, _PARTS = 7, 8
# Neighbours in each of the 8 orders that are compared, and pairs whose thumbnails are: bounds on the time.
_REACH, MOST_PAIRS = 256, 10_000
# The fingerprint is of a window of 9/10 of the image: its middle, or one of 25 positions.
_WINDOW = 0.9
_POSITIONS = np.linspace(0, 1 - _WINDOW, 5)
# Thumbnails are compared when shifted by up to 4 of 32 cells.
_SHIFT = 4


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Numbers of two images, first < second; `equal`: byte for byte."""

    first: int
    second: int
    equal: bool


def find_duplicates(infos: Sequence[ImageInfo]) -> list[Duplicates]:
    """Pairs of images with the same or nearly the same content, in order.

    Of n equal files the n - 1 pairs with the first are given. Only the first of them is compared with others.
    """
    first_of: dict[bytes, int] = {}
    equal = [
        Duplicates(first, number, True)
        for number, info in enumerate(infos)
        if not info.problem and (first := first_of.setdefault(info.digest, number)) != number
    ]
    alike = _alike(infos, np.array(sorted(first_of.values()), dtype=np.int64))
    return sorted(equal + alike, key=lambda pair: (pair.first, pair.second))


def _alike(infos: Sequence[ImageInfo], numbers: np.ndarray) -> list[Duplicates]:
    if len(numbers) < 2:
        return []
    flat = np.frombuffer(b"".join(infos[k].thumbnail for k in numbers), dtype=np.uint8)
    greys = flat.reshape(-1, THUMBNAIL, THUMBNAIL)
    pairs = _candidates_shifted(greys) if len(numbers) <= COMPARED_SHIFTED else _candidates(greys)
    pairs = pairs[_likeness(greys, pairs) >= ALIKE]
    found = [Duplicates(int(numbers[a]), int(numbers[b]), False) for a, b in pairs]
    return [pair for pair in found if _same_shape(infos[pair.first], infos[pair.second])]


def _fingerprints(greys: np.ndarray, y: float, x: float) -> np.ndarray:
    """(n,) uint64 of the windows whose corner is at these fractions of the image."""
    rows, columns = _averages(8, y), _averages(9, x)
    means = np.einsum("rh,nhw,cw->nrc", rows, greys.astype(np.float32), columns, optimize=True)
    bits = np.packbits((means[:, :, 1:] > means[:, :, :-1]).reshape(len(greys), 64), axis=1)
    return bits.view(np.uint64)[:, 0]


def _averages(count: int, start: float) -> np.ndarray:
    """(count, 32) weights that average the thumbnail's cells over `count` equal parts of a window."""
    edges = (start + _WINDOW * np.arange(count + 1) / count) * THUMBNAIL
    cells = np.arange(THUMBNAIL)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    weights = np.clip(overlap, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _candidates_shifted(greys: np.ndarray) -> np.ndarray:
    """(P, 2) ascending pairs: one, in one of 25 positions, has nearly the fingerprint of the other's middle."""
    middle = _fingerprints(greys, *[_POSITIONS[2]] * 2)
    windows = np.stack([_fingerprints(greys, y, x) for y in _POSITIONS for x in _POSITIONS], axis=1)
    found = []
    for number, window in enumerate(windows):
        bits = np.full(len(greys), 64, dtype=np.uint8)
        for each in window:
            bits = np.minimum(bits, _count(middle ^ each))
        others = np.flatnonzero(bits <= _SHIFTED_BITS)
        others = others[others != number]
        pair = np.sort(np.stack((others, np.full_like(others, number)), axis=1), axis=1)
        found.append(np.concatenate((bits[others, None], pair), axis=1))
    # The nearest first, in case there are too many: (bits, first, second)
    rows = np.concatenate(found)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    _, first = np.unique(rows[:, 1:], axis=0, return_index=True)
    return np.asarray(rows[np.sort(first)[:MOST_PAIRS], 1:])


def _candidates(greys: np.ndarray) -> np.ndarray:
    """(P, 2) ascending pairs whose fingerprints differ in few bits, without comparing each with each."""
    chunks = np.array_split(greys, len(greys) // 4096 + 1)
    prints = np.concatenate([_fingerprints(chunk, *[_POSITIONS[2]] * 2) for chunk in chunks])
    width = np.uint64(64 // _PARTS)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for part in range(_PARTS):
        # Rotated so that this part leads: sorting brings those that agree in it together.
        shift = np.uint64(part) * width
        turned = (prints << shift) | (prints >> (np.uint64(64) - shift)) if part else prints
        order = np.argsort(turned, kind="stable")
        lead = turned[order] >> (np.uint64(64) - width)
        for step in range(1, min(_REACH, len(prints) - 1) + 1):
            same = np.flatnonzero(lead[step:] == lead[:-step])
            if not len(same):
                break
            pairs = np.stack((order[same], order[same + step]), axis=1)
            found.append(np.sort(pairs[_count(prints[pairs[:, 0]] ^ prints[pairs[:, 1]]) <= _BITS], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    nearest = np.argsort(_count(prints[pairs[:, 0]] ^ prints[pairs[:, 1]]), kind="stable")
    return np.asarray(pairs[nearest[:MOST_PAIRS]])


def _count(words: np.ndarray) -> np.ndarray:
    """Set bits of each uint64 (numpy has a function of its own only from 2.0 on)."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(words))
    each = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1)
    return np.asarray(each.sum(axis=1, dtype=np.uint8))


def _likeness(greys: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(P,) the best correlation of the thumbnails' overlap over all shifts; plain ones are like nothing."""
    best = np.full(len(pairs), -1.0, dtype=np.float32)
    for start in range(0, len(pairs), 512):
        chunk = pairs[start : start + 512]
        one, other = greys[chunk[:, 0]].astype(np.float32), greys[chunk[:, 1]].astype(np.float32)
        for y in range(-_SHIFT, _SHIFT + 1):
            for x in range(-_SHIFT, _SHIFT + 1):
                score = _correlation(_moved(one, y, x), _moved(other, -y, -x))
                best[start : start + 512] = np.maximum(best[start : start + 512], score)
    return best


def _moved(greys: np.ndarray, y: int, x: int) -> np.ndarray:
    rows = slice(max(0, y), THUMBNAIL + min(0, y))
    columns = slice(max(0, x), THUMBNAIL + min(0, x))
    return greys[:, rows, columns].reshape(len(greys), -1)


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one - one.mean(axis=1, keepdims=True), other - other.mean(axis=1, keepdims=True)
    product = np.einsum("nk,nk->n", one, other)
    # 2 of 256 grey levels as spread: less is a plain image, whose noise correlates with anything.
    least = 4.0 * one.shape[1]
    powers = np.einsum("nk,nk->n", one, one), np.einsum("nk,nk->n", other, other)
    return np.asarray(product / np.sqrt(np.maximum(powers[0], least) * np.maximum(powers[1], least)))


def _same_shape(one: ImageInfo, other: ImageInfo) -> bool:
    """Whether height / width agree to 2 percent."""
    (h1, w1), (h2, w2) = one.size, other.size
    return abs(h1 * w2 - h2 * w1) <= 0.02 * max(h1 * w2, h2 * w1)
