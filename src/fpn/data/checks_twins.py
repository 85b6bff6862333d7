"""Pictures that are there twice: byte for byte, or nearly, found without comparing each with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fpn.data.checks_pictures import Look

# Two fingerprints of 64 bits that differ in at most 3 agree in at least one of 4 parts of 16 bits.
DIFFERENT_BITS = 3
_PARTS = 4
# Mean difference of the 256 grey values. Fingerprints of plain or regular pictures agree by chance; these then do not.
DIFFERENT_GREY = 6.0
# Neighbours in each of the four orders that are compared: a bound on the time that thousands of plain pictures take.
_REACH = 64


@dataclass(frozen=True, slots=True)
class Twins:
    """Numbers of two pictures, first < second; `equal`: byte for byte."""

    first: int
    second: int
    equal: bool


def find_twins(looks: Sequence[Look]) -> list[Twins]:
    """Pairs of pictures with the same or nearly the same content, in order.

    Of n equal files the n - 1 pairs with the first are given. Only the first of them is compared with others.
    """
    readable = [number for number, look in enumerate(looks) if not look.problem]
    first_of: dict[bytes, int] = {}
    equal = [
        Twins(first, number, True)
        for number in readable
        if (first := first_of.setdefault(looks[number].digest, number)) != number
    ]
    numbers = np.array(sorted(first_of.values()), dtype=np.int64)
    return sorted(equal + _alike(looks, numbers), key=lambda pair: (pair.first, pair.second))


def _alike(looks: Sequence[Look], numbers: np.ndarray) -> list[Twins]:
    if len(numbers) < 2:
        return []
    prints = np.array([looks[k].fingerprint for k in numbers], dtype=np.uint64)
    greys = np.frombuffer(b"".join(looks[k].thumbnail for k in numbers), dtype=np.uint8).reshape(len(numbers), -1)
    pairs = _close(prints)
    pairs = pairs[_difference(greys, pairs) <= DIFFERENT_GREY]
    found = [Twins(int(numbers[a]), int(numbers[b]), False) for a, b in pairs]
    return [pair for pair in found if _same_shape(looks[pair.first], looks[pair.second])]


def _close(prints: np.ndarray) -> np.ndarray:
    """(P, 2) pairs, each once and ascending, of fingerprints that differ in at most DIFFERENT_BITS."""
    found = [np.zeros((0, 2), dtype=np.int64)]
    width = np.uint64(64 // _PARTS)
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
            bits = np.bitwise_count(prints[pairs[:, 0]] ^ prints[pairs[:, 1]])
            found.append(np.sort(pairs[bits <= DIFFERENT_BITS], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _difference(greys: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(P,) mean absolute difference of the thumbnails, a bounded number at a time."""
    chunks = np.array_split(pairs, len(pairs) // 65536 + 1)
    parts = [np.abs(greys[c[:, 0]].astype(np.int16) - greys[c[:, 1]]).mean(axis=1) for c in chunks]
    return np.concatenate(parts)


def _same_shape(one: Look, other: Look) -> bool:
    """Whether height / width agree to 2 percent."""
    (h1, w1), (h2, w2) = one.size, other.size
    return abs(h1 * w2 - h2 * w1) <= 0.02 * max(h1 * w2, h2 * w1)
