"""Boxes, masks and keypoints go through every kind of preprocessing to the same place, and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fpn.detectors import PAPER
from fpn.preprocessing.frame import Frame
from fpn.preprocessing.preprocessor import Preprocessor
from fpn.preprocessing.resizing import FRAMES, network_frame
from fpn.shapes import Size
from fpn.structures import Detections, Masks, Targets

METHODS = sorted(FRAMES)
INSIDE_PADDING = ("square", "centred_64")
SIDES = st.integers(20, 200)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Size, list[float], int, int]:
    """An image's size, a box in it at least two pixels wide, and the network's short and long side."""
    size = Size(draw(SIDES), draw(SIDES))
    x1, y1 = draw(st.integers(0, size.width - 2)), draw(st.integers(0, size.height - 2))
    x2, y2 = draw(st.integers(x1 + 2, size.width)), draw(st.integers(y1 + 2, size.height))
    short = draw(st.integers(32, 300))
    return size, [float(x1), float(y1), float(x2), float(y2)], short, short + draw(st.integers(0, 300))


def preprocessor(method: str, short: int, long: int) -> Preprocessor:
    pixels = PAPER.pixels.changed(mean=(0.0,) * 3, std=(1.0,) * 3, resize=method, short_side=short, long_side=long)
    return Preprocessor(pixels)


def drawn(size: Size, box: list[float]) -> tuple[Image.Image, Targets]:
    """A white box on black, its mask as a polygon and as a code, its corners as keypoints and one not labelled."""
    x1, y1, x2, y2 = (int(value) for value in box)
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[y1:y2, x1:x2] = 255
    boxes = torch.tensor([box] * 2)
    dense = torch.from_numpy(pixels[None, :, :, 0] > 0)
    masks = Masks.concatenate([Masks.of_boxes(boxes[:1], size), Masks.from_dense(dense, size)])
    corners = [[x1, y1, 2.0], [x2, y2, 1.0], [0.0, 0.0, 0.0]]
    return Image.fromarray(pixels), Targets(
        boxes, torch.zeros(2, dtype=torch.int64), masks=masks, keypoints=torch.tensor([corners] * 2)
    )


def half_open(boxes: torch.Tensor, frame: Frame) -> torch.Tensor:
    """Boxes whose last corner names a pixel (matterport), as those that end behind it."""
    return boxes + torch.tensor([0.0, 0.0, 1.0, 1.0]) * frame.inclusive


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=10)
@given(scenes())
def test_masks_and_keypoints_lie_where_the_box_does(method: str, scene: tuple[Size, list[float], int, int]) -> None:
    size, box, short, long = scene
    image, truth = drawn(size, box)
    prepared = preprocessor(method, short, long).prepare(image, truth)
    moved, frame = prepared.targets, prepared.frame
    assert moved.masks.size == frame.network == tuple(prepared.pixels.shape[1:])
    expected = half_open(moved.boxes, frame)
    # matterport takes the first and last pixel of a box, not its edges, so an enlarged pixel is a box's tolerance.
    tolerance = max(1.0, *frame.pixel_scale) if method in INSIDE_PADDING else 1.0
    if (moved.boxes[:, 2:] - moved.boxes[:, :2]).min() >= 1:  # what is less than a pixel may lose its only one
        assert (moved.masks.boxes() - expected).abs().max() <= tolerance + 1e-3
    corners = moved.keypoints[:, :2, :2].flatten(1)
    if method not in INSIDE_PADDING:
        assert (corners - moved.boxes).abs().max() <= 1e-3
    assert (corners[0] - torch.from_numpy(moved.masks.polygons.points[[0, 2]].ravel())).abs().max() <= 1e-3
    assert moved.keypoints[:, :, 2].tolist() == [[2, 1, 0]] * 2
    assert moved.keypoints[:, 2].abs().max() == 0


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=10)
@given(scenes())
def test_a_mask_covers_the_pixels_that_were_drawn(method: str, scene: tuple[Size, list[float], int, int]) -> None:
    size, box, short, long = scene
    image, truth = drawn(size, box)
    prepared = preprocessor(method, short, long).prepare(image, truth)
    outlines = prepared.targets.masks.boxes()
    shown = prepared.pixels[0] > 0.5
    if shown.any():
        y, x = shown.nonzero().T
        seen = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert (outlines - seen).abs().max() <= 1.01
    else:
        # So small a thing that what is left of it in any pixel is less than half.
        assert (outlines[:, 2:] - outlines[:, :2]).amin() <= 1.5


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=10)
@given(scenes())
def test_restoring_brings_everything_back(method: str, scene: tuple[Size, list[float], int, int]) -> None:
    size, box, short, long = scene
    image, truth = drawn(size, box)
    door = preprocessor(method, short, long)
    prepared = door.prepare(image, truth)
    moved = prepared.targets
    found = Detections(
        moved.boxes, torch.ones(2), moved.labels, moved.masks, moved.keypoints[:, :2], origins=moved.boxes
    )
    back = door.restore(found, prepared.frame)
    assert (back.boxes - truth.boxes).abs().max() <= 1e-2
    assert (back.origins - truth.boxes).abs().max() <= 1e-2
    assert (back.keypoints - truth.keypoints[:, :2]).abs().max() <= 1e-2
    assert back.masks.size == size
    assert (back.masks[0].boxes() - truth.boxes[0]).abs().max() <= 1e-2
    # A code was sampled at the network's pixels, of which one may be several of the original's.
    pixel = max(1.0, *(1 / scale for scale in prepared.frame.pixel_scale))
    if back.masks.areas()[1]:
        assert (back.masks[1].boxes() - truth.boxes[1]).abs().max() <= math.ceil(pixel)
    else:
        assert (truth.boxes[1, 2:] - truth.boxes[1, :2]).min() <= pixel


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=5)
@given(scenes())
def test_what_a_mask_head_says_of_a_box_fills_it_in_the_original(
    method: str, scene: tuple[Size, list[float], int, int]
) -> None:
    size, box, short, long = scene
    door = preprocessor(method, short, long)
    frame = network_frame(size, method=method, short_side=short, long_side=long)
    boxes = frame.to_network(torch.tensor([box]))
    full = torch.ones(1, 28, 28)
    back = door.restore(
        Detections(boxes, torch.ones(1), torch.zeros(1, dtype=torch.int64), mask_probabilities=full), frame
    )
    assert back.mask_probabilities is None
    assert (back.masks.boxes() - torch.tensor([box])).abs().max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_an_image_without_objects_has_no_masks_but_their_frame(method: str) -> None:
    size = Size(30, 50)
    empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), masks=Masks.empty(size))
    prepared = preprocessor(method, 64, 96).prepare(Image.new("RGB", (50, 30)), empty)
    assert (len(prepared.targets.masks), prepared.targets.masks.size) == (0, prepared.frame.network)


def test_matterports_window_holds_the_mask_where_its_box_is() -> None:
    # A 100 x 50 image in the middle of a 1024 square: 10.24 times as large, 256 rows down.
    frame = network_frame(Size(50, 100), method="square", short_side=800, long_side=1024)
    assert (frame.offset, frame.content) == ((256.0, 0.0), (512, 1024))
    masks = frame.masks_to_network(Masks.of_boxes(torch.tensor([[10.0, 5.0, 20.0, 10.0]]), Size(50, 100)))
    assert masks.boxes()[0].tolist() == pytest.approx([102.4, 307.2, 204.8, 358.4])
    assert frame.to_network(torch.tensor([[10.0, 5.0, 20.0, 10.0]]))[0].tolist() == pytest.approx(
        [103.33, 308.14, 196.33, 349.86], abs=0.5
    )
