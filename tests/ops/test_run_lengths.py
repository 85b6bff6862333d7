from __future__ import annotations

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fpn.ops.run_lengths import (
    Runs,
    areas_of_runs,
    boxes_of_runs,
    columns_of_runs,
    counts_of_runs,
    counts_of_text,
    runs_of_columns,
    runs_of_counts,
    runs_of_mask,
    text_of_counts,
)

# An L of 6 x 5 pixels.
LETTER = np.array(
    [
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ],
    dtype=bool,
)
MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(np.bool_, shape))


def test_runs_go_down_the_columns() -> None:
    assert runs_of_mask(LETTER).tolist() == [[6, 11], [16, 17], [22, 23]]
    assert runs_of_mask(np.ones((2, 2), dtype=bool)).tolist() == [[0, 4]]
    assert runs_of_mask(np.zeros((2, 2), dtype=bool)).shape == (0, 2)


def test_counts_begin_outside() -> None:
    assert counts_of_runs(runs_of_mask(LETTER), 30).tolist() == [6, 5, 5, 1, 5, 1, 7]
    assert counts_of_runs(np.array([[0, 4]]), 4).tolist() == [0, 4]
    assert counts_of_runs(np.zeros((0, 2), dtype=np.int64), 4).tolist() == [4]


def test_empty_runs_in_a_code_join_their_neighbours() -> None:
    # 3 out, 2 in, none out, 1 in, 4 out: pixels 3, 4 and 5.
    assert runs_of_counts(np.array([3, 2, 0, 1, 4]), 10).tolist() == [[3, 6]]


@pytest.mark.parametrize("counts", [[5], [-1, 11], [11, -1], [2**40, 1], []])
def test_counts_that_do_not_add_up_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="do not add up"):
        runs_of_counts(np.array(counts, dtype=np.int64), 10)


@pytest.mark.parametrize("text", ["\x7f\x7f", " ", "ä", "P" * 30 + "0", "\u2603"])
def test_text_that_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="none of COCO's code"):
        counts_of_text(text)


@settings(deadline=None)
@given(MASKS)
def test_runs_counts_and_text_are_pycocotools_and_lead_back(mask: np.ndarray) -> None:
    spans = runs_of_mask(mask)
    height, width = mask.shape
    assert np.array_equal(columns_of_runs(spans, height, (0, 0, width, height)).T, mask)
    theirs = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts = counts_of_runs(spans, mask.size)
    assert text_of_counts(counts) == theirs["counts"].decode()
    assert counts_of_text(text_of_counts(counts)).tolist() == counts.tolist()
    assert runs_of_counts(counts, mask.size).tolist() == spans.tolist()


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=12))
def test_counts_of_any_size_survive_their_text(counts: list[int]) -> None:
    assert counts_of_text(text_of_counts(np.array(counts))).tolist() == counts


@settings(deadline=None)
@given(MASKS, st.integers(0, 3), st.integers(0, 3))
def test_a_piece_has_the_runs_that_it_has_in_the_whole(mask: np.ndarray, top: int, left: int) -> None:
    whole = np.zeros((12, 12), dtype=bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert runs_of_columns(mask.T, top=top, left=left, height=12).tolist() == runs_of_mask(whole).tolist()
    box = (left, top, left + mask.shape[1], top + mask.shape[0])
    assert np.array_equal(columns_of_runs(runs_of_mask(whole), 12, box).T, mask)


def test_areas_and_boxes_of_several_masks() -> None:
    bar = np.zeros((6, 5), dtype=bool)
    bar[:, 2:4] = True  # one run over two columns
    runs = Runs.of([runs_of_mask(each) for each in (LETTER, np.zeros_like(LETTER), bar)])
    assert areas_of_runs(runs).tolist() == [7, 0, 12]
    assert boxes_of_runs(runs, 6).tolist() == [[1, 0, 4, 5], [0, 0, 0, 0], [2, 0, 4, 6]]
    assert runs.take(np.array([2, 0])).one(1).tolist() == [[6, 11], [16, 17], [22, 23]]
