"""Masks as runs of pixels: from and to pixels and COCO's run-length codes.

Pixels are numbered down the columns, number = column * height + row, as COCO's codes count them. A mask is the list of
its runs, so that work and memory grow with its outline, not with the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

Integers = NDArray[np.int64]
# Thirteen characters of five bits hold every number of an image's pixels; more would leave 64 bits.
_MOST_CHARACTERS = 12


class Runs(NamedTuple):
    """The runs of N masks in one array.

    Attributes:
        spans: (T, 2) int64 first pixel of each run and the one behind its last. Those of a mask ascend and don't touch.
        starts: (N + 1,) int64, mask i has the runs starts[i] to starts[i + 1].
    """

    spans: Integers
    starts: Integers

    @classmethod
    def of(cls, masks: Sequence[Integers]) -> Runs:
        """Join the runs (t, 2) of some masks."""
        return cls(np.concatenate([no_runs(), *masks]), starts_of([len(spans) for spans in masks]))

    def take(self, numbers: Integers) -> Runs:
        """The runs of some of the masks, in this order."""
        rows, starts = rows_of_parts(self.starts, numbers)
        return Runs(self.spans[rows], starts)

    def one(self, number: int) -> Integers:
        """(t, 2), those of one mask."""
        return self.spans[self.starts[number] : self.starts[number + 1]]


def no_runs() -> Integers:
    """Of a mask without pixels."""
    return np.zeros((0, 2), dtype=np.int64)


def starts_of(counts: Sequence[int] | Integers) -> Integers:
    """Where each of N consecutive parts starts, and where the last one ends: (N + 1,)."""
    starts = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def rows_of_parts(starts: Integers, numbers: Integers) -> tuple[Integers, Integers]:
    """Rows of some parts of a joined array, and where these parts then start."""
    counts = np.diff(starts)[numbers]
    new = starts_of(counts)
    return np.arange(new[-1]) + np.repeat(starts[numbers] - new[:-1], counts), new


# --- pixels ---


def runs_of_columns(columns: Bool[np.ndarray, "w h"], *, top: int, left: int, height: int) -> Integers:
    """Runs of a piece of a mask, given column by column.

    Args:
        columns: its pixels, column by column.
        top, left: where the piece lies in the image.
        height: of the image.
    """
    padded = np.zeros((columns.shape[0], columns.shape[1] + 2), dtype=np.bool_)
    padded[:, 1:-1] = columns
    # A zero at both ends of each column: no run goes over to the next one. (Found among bools in a tenth of the time
    # that differences of numbers take.)
    flat = padded.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    column, row = np.divmod(edges, padded.shape[1])
    return joined_spans(((column + left) * height + row + top).reshape(-1, 2))


def runs_of_mask(mask: Bool[np.ndarray, "h w"]) -> Integers:
    """Runs of a whole mask."""
    return runs_of_columns(mask.T, top=0, left=0, height=mask.shape[0])


def columns_of_runs(spans: Integers, height: int, box: tuple[int, int, int, int]) -> Bool[np.ndarray, "w h"]:
    """The pixels of a mask in a box, column by column.

    Args:
        spans: its runs.
        height: of the image.
        box: xyxy, whole pixels, within the image.
    """
    left, top, right, bottom = box
    first, last = left * height, right * height
    ends = np.clip(spans.ravel(), first, last) - first
    lengths = np.diff(ends, prepend=0, append=last - first)
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(right - left, height)[:, top:bottom]


def joined_spans(spans: Integers) -> Integers:
    """Ascending runs without the empty ones, those that touch made one."""
    spans = spans[spans[:, 1] > spans[:, 0]]
    apart = spans[1:, 0] > spans[:-1, 1]
    if apart.all():
        return spans
    keep = np.concatenate(([True], apart))
    return np.stack([spans[keep, 0], spans[np.concatenate((keep[1:], [True])), 1]], axis=1)


def united_spans(spans: Integers) -> Integers:
    """The runs (t, 2) of whatever any of these runs, which may overlap and come in any order, cover."""
    spans = spans[spans[:, 0].argsort(kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    return joined_spans(np.stack([np.maximum(spans[:, 0], np.concatenate(([0], ends[:-1]))), ends], axis=1))


def areas_of_runs(runs: Runs) -> Integers:
    """(N,) pixels of each mask."""
    total = np.concatenate(([0], np.cumsum(runs.spans[:, 1] - runs.spans[:, 0])))
    return total[runs.starts[1:]] - total[runs.starts[:-1]]


def boxes_of_runs(runs: Runs, height: int) -> Int[np.ndarray, "n 4"]:
    """(N, 4) xyxy, tight around each mask; zeros for one without pixels."""
    boxes = np.zeros((len(runs.starts) - 1, 4), dtype=np.int64)
    filled = np.flatnonzero(np.diff(runs.starts))
    if not len(filled):
        return boxes
    first, last = runs.spans[:, 0], runs.spans[:, 1] - 1
    one_column = first // height == last // height
    at = runs.starts[filled]
    boxes[filled, 0] = np.minimum.reduceat(first // height, at)
    boxes[filled, 1] = np.minimum.reduceat(np.where(one_column, first % height, 0), at)
    boxes[filled, 2] = np.maximum.reduceat(last // height, at) + 1
    boxes[filled, 3] = np.maximum.reduceat(np.where(one_column, last % height, height - 1), at) + 1
    return boxes


# --- COCO's codes ---


def counts_of_runs(spans: Integers, pixels: int) -> Integers:
    """Lengths of the runs outside and inside by turns, outside first, of a mask in an image of so many pixels."""
    counts = np.diff(spans.ravel(), prepend=0, append=pixels)
    return counts if counts[-1] or len(counts) == 1 else counts[:-1]


def runs_of_counts(counts: Integers, pixels: int) -> Integers:
    """The reverse of `counts_of_runs`.

    Raises:
        ValueError: a count is negative, or they don't add up to the image.
    """
    if (len(counts) and (counts.min() < 0 or counts.max() > pixels)) or counts.sum() != pixels:
        raise ValueError("the runs do not add up to the image")
    ends = np.cumsum(counts)
    return joined_spans(ends[: len(ends) // 2 * 2].reshape(-1, 2))


def text_of_counts(counts: Integers) -> str:
    """Counts as COCO compresses them: five bits a character, from the fourth on less the one two before."""
    rest = counts.astype(np.int64)
    rest[3:] -= counts[1:-2]
    characters, used = [], []
    going = np.ones(len(rest), dtype=bool)
    while going.any():
        low = rest & 31
        rest = rest >> 5
        # Five bits are the last ones if their highest says the sign of all.
        more = np.where(low & 16, rest != -1, rest != 0)
        characters.append((low | np.where(more, 32, 0)) + 48)
        used.append(going)
        going = going & more
    if not characters:
        return ""
    text = np.stack(characters, axis=1)[np.stack(used, axis=1)].astype(np.uint8)
    return bytes(text).decode("ascii")


def counts_of_text(text: str) -> Integers:
    """The reverse of `text_of_counts`.

    Raises:
        ValueError: it holds what is none of COCO's code. What is behind the last whole number is left out.
    """
    try:
        codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        codes = np.array([-1])
    ends = np.flatnonzero((codes & 32) == 0)
    codes = codes[: ends[-1] + 1] if len(ends) else codes
    lengths = np.diff(ends, prepend=-1)
    if ((codes < 0) | (codes > 63)).any() or lengths.max(initial=0) > _MOST_CHARACTERS:
        raise ValueError("counts hold a character that is none of COCO's code")
    if not len(ends):
        return np.zeros(0, dtype=np.int64)
    starts = ends - lengths + 1
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
