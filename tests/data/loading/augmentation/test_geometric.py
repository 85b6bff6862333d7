from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.data.loading.augmentation.geometric import crop_around, jitter, rotate
from fpn.shapes import Size
from fpn.structures import Targets

from .given import chances, ink_box, labelled

WHOLE = [[40, 20, 60, 40]]


@pytest.mark.parametrize("index", range(8))
def test_jitter_below_one_lays_a_smaller_image_on_its_own_size(index):
    changed = jitter(labelled(WHOLE), AugmentationConfig(jitter=(0.5, 0.5)), chances(index))
    assert changed.image.size == (100, 60)
    [box] = changed.targets.boxes.tolist()
    assert box == ink_box(changed.image)
    assert (box[2] - box[0], box[3] - box[1]) == (10, 10)


@pytest.mark.parametrize("index", range(8))
def test_jitter_above_one_cuts_out_a_part_anywhere(index):
    changed = jitter(labelled(WHOLE), AugmentationConfig(jitter=(2.0, 2.0)), chances(index))
    assert changed.image.size == (50, 30)
    if len(changed.targets):
        assert changed.targets.boxes[0].tolist() == ink_box(changed.image)
    else:
        assert np.asarray(changed.image).max() == 0


def test_jitter_goes_to_places_without_objects_too():
    config = AugmentationConfig(jitter=(4.0, 4.0))
    counts = [len(jitter(labelled(WHOLE), config, chances(index)).targets) for index in range(40)]
    assert set(counts) == {0, 1}


@pytest.mark.parametrize("masks", ["none", "codes"])
def test_an_image_left_without_objects_is_like_one_that_never_had_any(masks):
    sample = labelled([[0, 0, 4, 4]], masks=masks)
    changed = [jitter(sample, AugmentationConfig(jitter=(4.0, 4.0)), chances(index)).targets for index in range(20)]
    empty, never = next(each for each in changed if len(each) == 0), Targets.empty()
    for ours, theirs in ((empty.boxes, never.boxes), (empty.labels, never.labels), (empty.ignore, never.ignore)):
        assert ours.equal(theirs)
        assert ours.dtype == theirs.dtype
    assert masks == "none" or len(empty.masks) == 0


def test_jitter_draws_all_factors_alike():
    config = AugmentationConfig(jitter=(0.5, 1.0))
    sides = [
        np.diff(jitter(labelled([[0, 0, 100, 60]]), config, chances(index)).targets.boxes[0, [0, 2]])[0]
        for index in range(100)
    ]
    assert 50 <= min(sides) < 55
    assert 95 < max(sides) <= 100
    assert 70 < np.mean(sides) < 80


@pytest.mark.parametrize("index", range(12))
def test_a_crop_holds_one_of_the_objects_as_a_whole(index):
    boxes = [[5, 5, 15, 15], [80, 40, 98, 55]]
    changed = crop_around(labelled(boxes), AugmentationConfig(crop=1.0, crop_sides=(0.2, 0.4)), chances(index))
    assert changed.image.width <= 40
    assert changed.image.height <= 24
    sides = (changed.targets.boxes[:, 2:] - changed.targets.boxes[:, :2]).tolist()
    assert [10, 10] in sides or [18, 15] in sides


def test_a_crop_grows_with_its_object():
    changed = crop_around(labelled([[10, 5, 90, 50]]), AugmentationConfig(crop=1.0, crop_sides=(0.1, 0.1)), chances())
    assert changed.image.size == (80, 45)
    assert changed.targets.boxes.tolist() == [[0, 0, 80, 45]]


def test_a_crop_is_not_made_around_a_crowd():
    found = set()
    for index in range(30):
        sample = labelled([[0, 0, 10, 10], [70, 30, 80, 40]], ignore=[True, False])
        changed = crop_around(sample, AugmentationConfig(crop=1.0, crop_sides=(0.2, 0.2)), chances(index))
        found |= set(changed.targets.labels.tolist())
    assert found == {1}


def test_an_image_without_objects_is_cropped_anywhere():
    changed = crop_around(labelled([]), AugmentationConfig(crop=1.0, crop_sides=(0.5, 0.5)), chances())
    assert (changed.image.size, len(changed.targets)) == ((50, 30), 0)


def test_a_turn_moves_pixels_as_it_moves_boxes_and_all_three_come():
    sizes = set()
    for index in range(20):
        changed = rotate(labelled([[10, 20, 40, 30]], masks="codes"), AugmentationConfig(rotate=1.0), chances(index))
        assert changed.targets.boxes.tolist() == changed.targets.masks.boxes().tolist() == [ink_box(changed.image)]
        sizes.add((changed.image.size, *changed.targets.boxes[0].tolist()))
    assert {(size, *box[:2]) for size, *box in sizes} == {
        ((60, 100), 20, 60),
        ((100, 60), 60, 30),
        ((60, 100), 30, 10),
    }


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 50), st.integers(1, 10), st.integers(1, 10)), max_size=4),
)
def test_no_box_leaves_its_image_after_jitter_crop_and_turn(index, corners):
    boxes = [[x, y, x + width, y + height] for x, y, width, height in corners]
    config = AugmentationConfig(jitter=(0.3, 2.5), crop=0.7, rotate=0.7)
    sample = labelled(boxes)
    for step in (jitter, crop_around, rotate):
        sample = step(sample, config, chances(index))
    size = Size(sample.image.height, sample.image.width)
    assert (sample.targets.boxes >= 0).all()
    assert (sample.targets.boxes[:, [0, 2]] <= size.width).all()
    assert (sample.targets.boxes[:, [1, 3]] <= size.height).all()
    assert ((sample.targets.boxes[:, 2:] - sample.targets.boxes[:, :2]) >= 1).all()
