from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpn.data.loading.augmentation import objects
from fpn.errors import ConfigError
from fpn.shapes import Size
from fpn.structures import Masks, Targets

from .given import SKELETON, labelled

SIZE = Size(60, 100)
KINDS = ["polygons", "codes"]
POINTS = [[[10.0, 20.0, 2.0], [30.0, 50.0, 1.0], [0.0, 0.0, 0.0]]]


def one(masks: str = "polygons") -> Targets:
    """A box of 20 x 30 whose keypoints are two of its corners."""
    return labelled([[10, 20, 30, 50]], masks=masks, points=POINTS).targets


@pytest.mark.parametrize("masks", KINDS)
@pytest.mark.parametrize(
    ("quarters", "size", "box", "points"),
    [
        # Counterclockwise: x becomes height, from below; y becomes width.
        (1, (100, 60), [20, 70, 50, 90], [[20, 90, 2], [50, 70, 1], [0, 0, 0]]),
        (2, (60, 100), [70, 10, 90, 40], [[90, 40, 2], [70, 10, 1], [0, 0, 0]]),
        (3, (100, 60), [10, 10, 40, 30], [[40, 10, 2], [10, 30, 1], [0, 0, 0]]),
    ],
)
def test_a_turn_moves_box_mask_and_keypoints_alike(masks, quarters, size, box, points):
    turned = objects.turn(one(masks), SIZE, quarters)
    assert turned.boxes.tolist() == [box]
    assert turned.masks.boxes().tolist() == [box]
    assert (turned.masks.size, turned.masks.areas().tolist()) == (size, [600])
    assert turned.keypoints.tolist() == [points]


@pytest.mark.parametrize("masks", KINDS)
def test_four_quarters_are_none_and_two_are_both_flips(masks):
    whole = one(masks)
    once = objects.turn(whole, SIZE, 1)
    assert objects.turn(once, Size(100, 60), 3).boxes.equal(whole.boxes)
    twice = objects.turn(once, Size(100, 60), 1)
    mirrored = objects.flip(objects.flip(whole, SIZE, SKELETON), SIZE, SKELETON, vertical=True)
    assert twice.boxes.equal(mirrored.boxes)
    assert twice.masks.dense().equal(mirrored.masks.dense())
    # Two mirrors exchange left and right twice: not at all.
    assert twice.keypoints.equal(mirrored.keypoints)


@pytest.mark.parametrize("masks", KINDS)
def test_a_cut_at_half_the_size_halves_and_clips_all(masks):
    shown = objects.cut(one(masks), scale=(0.5, 0.5), offset=(-10.0, -10.0), size=Size(20, 40), min_visible=0.3)
    # x 10..30 -> -5..5, y 20..50 -> 0..15.
    assert shown.boxes.tolist() == shown.masks.boxes().tolist() == [[0, 0, 5, 15]]
    assert shown.masks.areas().tolist() == [75]
    assert shown.keypoints.tolist() == [[[0, 0, 0], [5, 15, 1], [0, 0, 0]]]
    assert shown.ignore.tolist() == [False]


@pytest.mark.parametrize(
    ("left", "boxes", "ignore"),
    [
        (16, [[0, 20, 14, 50]], [False]),  # 14 of 20 columns are left
        (24, [[0, 20, 6, 50]], [False]),  # 6: just enough
        (25, [[0, 20, 5, 50]], [True]),  # 5: a quarter
        (29.5, [], []),  # half a pixel
        (30, [], []),
    ],
)
def test_what_a_cut_leaves_too_little_of_is_ignored_or_dropped(left, boxes, ignore):
    shown = objects.cut(one("none"), offset=(0.0, -float(left)), size=SIZE, min_visible=0.3)
    assert (shown.boxes.tolist(), shown.ignore.tolist()) == (boxes, ignore)


def test_a_crowd_stays_one_however_much_of_it_is_seen():
    crowd = labelled([[0, 0, 80, 60]], ignore=[True]).targets
    shown = objects.cut(crowd, offset=(0.0, -40.0), size=Size(60, 60), min_visible=0.3)
    assert (shown.boxes.tolist(), shown.ignore.tolist()) == ([[0, 0, 40, 60]], [True])


def test_an_object_without_pixels_in_its_mask_goes_by_its_box():
    empty = Targets(torch.tensor([[10.0, 20.0, 30.0, 50.0]]), torch.tensor([0]), masks=Masks.of_outlines([()], SIZE))
    shown = objects.cut(empty, offset=(0.0, -20.0), size=SIZE, min_visible=0.3)
    assert (shown.boxes.tolist(), shown.ignore.tolist()) == ([[0, 20, 10, 50]], [False])
    over = np.zeros(SIZE, dtype=np.bool_)
    over[:, 15:] = True  # three quarters of its columns
    left = objects.cover(empty, over, min_visible=0.3)
    assert (left.boxes.tolist(), left.ignore.tolist()) == ([[10, 20, 30, 50]], [True])


@pytest.mark.parametrize("masks", KINDS)
def test_what_lies_over_a_mask_is_taken_from_it(masks):
    over = np.zeros(SIZE, dtype=np.bool_)
    over[:, 15:] = True  # 15 of the 20 columns
    [rest] = [objects.cover(one(masks), over, min_visible=0.3)]
    assert rest.boxes.tolist() == rest.masks.boxes().tolist() == [[10, 20, 15, 50]]
    assert (rest.masks.areas().tolist(), rest.ignore.tolist()) == ([150], [True])
    assert objects.cover(one(masks), over, min_visible=0.25).ignore.tolist() == [False]
    over[:, 10:] = True
    assert len(objects.cover(one(masks), over, min_visible=0.3)) == 0


def test_without_masks_the_covered_share_of_the_box_decides_and_the_box_stays():
    over = np.zeros(SIZE, dtype=np.bool_)
    over[20:50, 10:25] = True  # three quarters
    rest = objects.cover(one("none"), over, min_visible=0.3)
    assert (rest.boxes.tolist(), rest.ignore.tolist()) == ([[10, 20, 30, 50]], [True])
    assert objects.cover(one("none"), over, min_visible=0.25).ignore.tolist() == [False]
    over[20:50, 10:30] = True
    assert len(objects.cover(one("none"), over, min_visible=0.3)) == 0


def test_covered_keypoints_are_hidden_and_others_stay():
    over = np.zeros(SIZE, dtype=np.bool_)
    over[18:22, 8:12] = True
    assert objects.cover(one(), over, min_visible=0.3).keypoints[0, :, 2].tolist() == [1, 1, 0]
    assert objects.cover(one(), np.roll(over, 5, axis=0), min_visible=0.3).keypoints[0, :, 2].tolist() == [2, 1, 0]


def test_objects_that_nothing_touches_keep_masks_bit_by_bit():
    whole = one()
    assert objects.cover(whole, np.zeros(SIZE, dtype=np.bool_), min_visible=0.3).masks == whole.masks


def test_objects_of_several_images_are_joined_in_order():
    both = objects.join([one(), objects.turn(one("codes"), SIZE, 2)], SIZE)
    assert both.boxes.tolist() == both.masks.boxes().tolist() == [[10, 20, 30, 50], [70, 10, 90, 40]]
    assert both.keypoints.shape == (2, 3, 3)
    alone = objects.join([Targets.empty(), one()], SIZE)
    assert (len(alone), len(alone.masks), alone.keypoints.shape) == (1, 1, (1, 3, 3))
    assert len(objects.join([Targets.empty(), Targets.empty()], SIZE)) == 0


def test_flipping_keypoints_without_a_skeleton_is_refused():
    with pytest.raises(ConfigError, match="flipping keypoints needs a skeleton"):
        objects.flip(one(), SIZE, None)


CORNERS, SIDES = st.floats(-5, 90), st.floats(1, 60)
BOXES = st.lists(
    st.builds(lambda x, y, w, h: (x, y, x + w, y + h), CORNERS, CORNERS, SIDES, SIDES), min_size=1, max_size=5
)


@settings(deadline=None, max_examples=25)
@given(
    BOXES,
    st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
    st.tuples(st.floats(-80, 80), st.floats(-80, 80)),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
)
def test_no_box_leaves_its_image_and_none_is_degenerate(boxes, scale, offset, quarters, with_masks):
    corners = torch.tensor(boxes)
    masks = Masks.of_boxes(corners, SIZE) if with_masks else None
    targets = Targets(corners, torch.zeros(len(boxes), dtype=torch.int64), masks=masks)
    size = Size(40, 70)
    shown = objects.cut(targets, scale=scale, offset=offset, size=size, min_visible=0.2)
    turned = objects.turn(shown, size, quarters)
    frame = size if quarters == 2 else Size(size.width, size.height)
    over = np.zeros(frame, dtype=np.bool_)
    over[10:30, 5:35] = True
    for each, (height, width) in (
        (shown, size),
        (turned, frame),
        (objects.cover(turned, over, min_visible=0.2), frame),
    ):
        assert (each.boxes >= 0).all()
        assert (each.boxes <= torch.tensor([width, height, width, height]) + 1e-4).all()
        assert ((each.boxes[:, 2:] - each.boxes[:, :2]) >= 1 - 1e-4).all()
        assert each.masks is None or (len(each.masks) == len(each) and each.masks.size == (height, width))
