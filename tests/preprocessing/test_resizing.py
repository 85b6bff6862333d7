"""How each toolkit scales, on images small enough to count."""

import numpy as np
import pytest
import torch
from parity.golden.cases import case
from PIL import Image

from fpn.preprocessing.resizing import resize, resize_centred


def grey(values) -> Image.Image:
    return Image.fromarray(np.repeat(np.array(values, dtype=np.uint8)[:, :, None], 3, axis=2))


def test_opencv_steps_by_exactly_one_over_the_scale():
    # 3 -> 5 pixels at scale 5/3 would be 3/5 a step; at scale 1.5 (short side 3 of 2) the 3 pixels become 4 (4.5, half
    # to even), and the step stays 1/1.5: positions -1/6, 1/2, 7/6, 11/6.
    values, frame = resize(grey([[0, 90, 180]] * 2), method="opencv", short_side=3, long_side=None)
    assert values.shape == (3, 4, 3)
    assert frame.scale == (1.5, 1.5)
    np.testing.assert_allclose(values[0, :, 0], [0, 45, 105, 165], atol=1e-4)


def test_opencv_in_8_bit_steps_by_the_ratio_of_sides_and_rounds():
    # 3 -> 5 pixels (4.5 rounded up): positions -0.2, 0.4, 1, 1.6, 2.2.
    values, _ = resize(grey([[0, 90, 180]] * 2), method="opencv_8bit", short_side=3, long_side=None)
    assert values.dtype == np.uint8
    assert values[0, :, 0].tolist() == [0, 36, 90, 144, 180]


def test_a_square_truncates_darkens_the_rim_and_centres():
    # 2 x 4 at scale 2 -> 4 x 8 in the middle of 8 x 8. The first sample lies a quarter of a pixel outside, where it is
    # black: 0.75 * 0.75 * 101 = 56.8 -> 56.
    values, frame = resize(grey([[101] * 4] * 2), method="square", short_side=4, long_side=8)
    assert values.shape == (8, 8, 3)
    assert values[[1, 6], 0, 0].tolist() == [0, 0]
    assert values[2, 0, 0] == 56
    assert values[3, 3, 0] == 101
    assert frame.window == (0, 2, 7, 5)  # inclusive corners


def test_a_square_is_never_made_smaller_for_the_short_side():
    values, frame = resize(grey([[7] * 4] * 4), method="square", short_side=2, long_side=6)
    assert values[1:5, 1:5, 0].tolist() == [[7] * 4] * 4
    assert frame.offset == (1, 1)


def test_centred_64_pads_each_side_to_a_multiple_of_64():
    values, frame = resize(grey([[7] * 70] * 64), method="centred_64", short_side=64, long_side=None)
    assert values.shape == (64, 128, 3)
    assert frame.window == (29, 0, 98, 63)


@pytest.mark.parametrize("method", ["pillow", "torch", "opencv", "opencv_8bit", "square", "centred_64"])
def test_boxes_come_back_where_they_were(method):
    _, frame = resize(grey(np.zeros((30, 50))), method=method, short_side=60, long_side=128)
    boxes = torch.tensor([[3.0, 4.0, 20.0, 25.0], [0.0, 0.0, 50.0, 30.0]])
    torch.testing.assert_close(frame.to_original(frame.to_network(boxes)), boxes)


@pytest.mark.parametrize("name", [n for n in case("mrcnn_7_images").meta["cases"] if n != "none"])
def test_matterport_images_to_the_last_bit(name):
    figures = case("mrcnn_7_images")
    about = figures.meta["cases"][name]
    options = about["args"]
    values, frame = resize_centred(
        Image.fromarray(figures["image_rgb"]),
        short_side=options["min_dim"],
        long_side=options["max_dim"],
        min_scale=float(options["min_scale"]),
        multiple=64 if options["mode"] == "pad64" else None,
    )
    stored = f"resized_{name}"
    assert (figures.stored_part(stored, values) == figures[stored]).all()
    top, left, bottom, right = about["window"]
    assert frame.window == (left, top, right - 1, bottom - 1)
