from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpn.data.loading.augmentation.compositing import copy_paste, mix_up, mosaic
from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.shapes import Size

from .given import chances, ink_box, labelled, partners


def unmoved(sample, chances):
    return sample


def test_a_mosaic_has_the_first_ones_size_and_a_part_of_each_in_its_own_colour():
    first, second = labelled([], ground=40), labelled([], ground=120)
    whole = mosaic(first, AugmentationConfig(mosaic=1.0), chances(3), partners(second))
    assert whole.image.size == (100, 60)
    pixels = np.asarray(whole.image)[:, :, 0]
    assert set(np.unique(pixels)) == {40, 120}
    # The point where they meet lies in the middle half; the first image has one quarter, from its corner to there.
    y, x = (pixels == 40).nonzero()
    height, width = int(y.max() - y.min()) + 1, int(x.max() - x.min()) + 1
    assert len(y) == height * width
    assert 15 <= height <= 45
    assert 25 <= width <= 75


@pytest.mark.parametrize("masks", ["none", "polygons", "codes"])
@pytest.mark.parametrize("index", range(6))
def test_boxes_and_masks_of_a_mosaic_lie_where_its_pixels_do(masks, index):
    ours = labelled([[40, 20, 60, 40]], masks=masks)
    others = labelled([], masks=masks)
    whole = mosaic(ours, AugmentationConfig(mosaic=1.0, mosaic_scale=(1.0, 1.0)), chances(index), partners(others))
    # Its own view is as large as it was: a cut, not resized.
    [box] = whole.targets.boxes.tolist()
    assert box == ink_box(whole.image)
    if masks != "none":
        assert whole.targets.masks.size == (60, 100)
        assert whole.targets.masks.boxes().tolist() == [box]


def test_parts_of_a_mosaic_of_half_the_size_show_objects_of_half_the_size():
    ours = labelled([[40, 20, 60, 40]])
    config = AugmentationConfig(mosaic=1.0, mosaic_scale=(0.5, 0.5))
    whole = mosaic(ours, config, chances(1), partners(labelled([])))
    x1, y1, x2, y2 = whole.targets.boxes[0].tolist()
    # Half of 20, or as much more as filling a quarter takes, which is 0.25 to 0.75 of the sides.
    assert 10 <= x2 - x1 <= 15
    assert 10 <= y2 - y1 <= 15


def test_images_of_all_sizes_make_a_mosaic_without_empty_ground():
    small, tall = labelled([], size=Size(9, 7), ground=90), labelled([], size=Size(300, 40), ground=90)
    for index in range(4):
        whole = mosaic(labelled([], ground=90), AugmentationConfig(mosaic=1.0), chances(index), partners(small, tall))
        assert np.asarray(whole.image).min() == 90
    tiny = labelled([], size=Size(3, 3))
    assert mosaic(tiny, AugmentationConfig(mosaic=1.0), chances(), partners(small)) is tiny


def test_mix_up_weighs_colours_and_keeps_the_objects_of_both():
    ours, other = labelled([[0, 0, 10, 10]], ink=200), labelled([[50, 30, 70, 50]], ink=100, ground=100)
    config = AugmentationConfig(mix_up=1.0, mix_up_share=(0.4, 0.4))
    mixed = mix_up(ours, config, chances(), partners(other), prepare=unmoved)
    assert mixed.targets.boxes.tolist() == [[0, 0, 10, 10], [50, 30, 70, 50]]
    pixels = np.asarray(mixed.image)[:, :, 0]
    # 0.6 of 200 and 0.4 of 100; 0.6 of nothing and 0.4 of 100.
    assert (pixels[5, 5], pixels[50, 90]) == (160, 40)


def test_mix_up_resizes_the_other_image_to_cover_the_first():
    ours, other = labelled([]), labelled([[10, 10, 20, 20]], size=Size(30, 50), masks="codes")
    mixed = mix_up(ours, AugmentationConfig(mix_up=1.0), chances(), partners(other), prepare=unmoved)
    assert mixed.targets.boxes.tolist() == mixed.targets.masks.boxes().tolist() == [[20, 20, 40, 40]]
    assert mixed.image.size == (100, 60)


@pytest.mark.parametrize("masks", ["none", "polygons", "codes"])
@pytest.mark.parametrize("index", range(6))
def test_a_pasted_object_lies_where_its_box_mask_and_keypoints_say(masks, index):
    points = [[[20.0, 10.0, 2.0], [32.0, 26.0, 1.0], [0.0, 0.0, 0.0]]]
    other = labelled([[20, 10, 32, 26]], masks=masks, points=points, ground=0)
    config = AugmentationConfig(copy_paste=1.0)
    ground = labelled([], masks=masks, points=[])
    done = copy_paste(ground, config, chances(index), partners(other), prepare=unmoved)
    [box] = done.targets.boxes.tolist()
    assert (box[2] - box[0], box[3] - box[1]) == (12, 16)
    assert box == pytest.approx(ink_box(done.image, above=200), abs=1)
    [nose, left, right] = done.targets.keypoints[0].tolist()
    assert (nose, left, right) == ([*box[:2], 2], [*box[2:], 1], [0, 0, 0])
    if masks != "none":
        assert done.targets.masks.boxes().tolist() == [box]
        assert done.targets.masks.areas().tolist() == [192]


def test_an_object_of_a_smaller_image_is_pasted_at_the_size_it_has_in_this_one():
    other = labelled([[5, 5, 15, 10]], size=Size(30, 50))
    done = copy_paste(labelled([]), AugmentationConfig(copy_paste=1.0), chances(), partners(other), prepare=unmoved)
    x1, y1, x2, y2 = done.targets.boxes[0].tolist()
    assert (x2 - x1, y2 - y1) == (20, 10)


@pytest.mark.parametrize("masks", ["none", "codes"])
def test_what_is_pasted_over_is_covered(masks):
    ours = labelled([[0, 0, 100, 60], [40, 20, 60, 40]], masks=masks)
    other = labelled([[0, 0, 100, 60]], masks=masks, ink=150)
    done = copy_paste(ours, AugmentationConfig(copy_paste=1.0), chances(), partners(other), prepare=unmoved)
    # The whole image is pasted over: nothing of the others is left.
    assert (done.targets.boxes.tolist(), done.targets.labels.tolist()) == ([[0, 0, 100, 60]], [0])
    assert np.asarray(done.image).min() == 150


def test_crowds_are_not_pasted_and_at_most_as_many_as_asked_for():
    boxes = [[10 * k, 0, 10 * k + 8, 8] for k in range(8)]
    other = labelled(boxes, ignore=[True] * 2 + [False] * 6)
    config = AugmentationConfig(copy_paste=1.0, copy_paste_objects=3, min_visible=0.0)
    counts, labels = set(), set()
    for index in range(30):
        done = copy_paste(labelled([]), config, chances(index), partners(other), prepare=unmoved)
        counts.add(len(done.targets))
        labels |= set(done.targets.labels.tolist())
    assert counts == {1, 2, 3}
    assert labels == {2, 3, 4, 5, 6, 7}
    only = labelled([[0, 0, 9, 9]], ignore=[True])
    sample = labelled([[1, 1, 5, 5]])
    assert copy_paste(sample, config, chances(), partners(only), prepare=unmoved) is sample


def test_a_pasted_box_without_mask_fades_over_its_rim_and_keeps_its_own_pixels():
    other = labelled([[40, 20, 60, 40]], ink=200, ground=100)
    done = copy_paste(labelled([]), AugmentationConfig(copy_paste=1.0), chances(1), partners(other), prepare=unmoved)
    x1, y1, x2, y2 = (round(side) for side in done.targets.boxes[0].tolist())
    pixels = np.asarray(done.image)[:, :, 0].astype(int)
    assert (pixels[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] == 200).all()
    if x2 + 7 < 100:
        assert (np.diff(pixels[(y1 + y2) // 2, x2 : x2 + 7]) <= 0).all()
    assert pixels.min() == 0


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(-2, 90), st.integers(-2, 50), st.integers(1, 40), st.integers(1, 40)), max_size=4),
    st.sampled_from(["none", "polygons", "codes"]),
)
def test_no_box_leaves_its_image_whatever_is_put_together(index, corners, masks):
    beyond = [[x, y, x + width, y + height] for x, y, width, height in corners]
    within = [[max(0, x), max(0, y), min(100, x2), min(60, y2)] for x, y, x2, y2 in beyond if min(x2, y2) >= 1]
    ours, other = labelled(within, masks=masks), labelled(beyond, masks=masks, size=Size(80, 64))
    config = AugmentationConfig(mosaic=0.5, mix_up=0.5, copy_paste=0.8)
    sample = mosaic(ours, config, chances(index), partners(other))
    sample = mix_up(sample, config, chances(index), partners(other), prepare=unmoved)
    made = copy_paste(sample, config, chances(index), partners(other), prepare=unmoved).targets
    assert (made.boxes >= 0).all()
    assert (made.boxes[:, [0, 2]] <= 100 + 1e-3).all()
    assert (made.boxes[:, [1, 3]] <= 60 + 1e-3).all()
    assert made.masks is None or (len(made.masks), made.masks.size) == (len(made), (60, 100))
