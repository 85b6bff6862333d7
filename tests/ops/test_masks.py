from __future__ import annotations

import numpy as np
import pytest
import torch
from parity.golden.cases import case
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.ops import roi_align

from fpn.ops.masks import crop_pixels, crop_runs, paste_masks
from fpn.ops.run_lengths import Runs, columns_of_runs, runs_of_mask
from fpn.shapes import Size

# An L of 6 x 5 pixels.
LETTER = torch.tensor(
    [
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ],
    dtype=torch.bool,
)


def runs_of(masks: Tensor) -> Runs:
    return Runs.of([runs_of_mask(mask.numpy()) for mask in masks])


def pasted(masks: Tensor, boxes: Tensor, height: int, width: int, *, threshold: float = 0.5) -> Tensor:
    runs = paste_masks(masks, boxes, Size(height, width), threshold=threshold)
    columns = [columns_of_runs(runs.one(k), height, (0, 0, width, height)) for k in range(len(masks))]
    return torch.from_numpy(np.array(columns).reshape(-1, width, height)).transpose(1, 2)


def test_a_crop_is_the_covered_part_of_its_own_mask() -> None:
    # 2 x 2 pixels a cell, of which 2, 0, 3 and 1 are set: bilinear samples lie on the pixels' centres.
    box = torch.tensor([[0.0, 1.0, 4.0, 5.0]] * 2)
    masks = torch.stack([torch.zeros_like(LETTER), LETTER])
    crops = crop_runs(runs_of(masks), box, Size(6, 5), cells=2)
    assert crops.tolist() == [[[0, 0], [0, 0]], [[0.5, 0.0], [0.5, 0.5]]]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("cells", [1, 7, 14])
def test_crops_are_torchvisions_roi_align_of_the_pixels(aligned: bool, cells: int) -> None:
    random = torch.Generator().manual_seed(3)
    masks = torch.rand(40, 37, 29, generator=random) > 0.5
    corners = torch.rand(40, 2, 2, generator=random) * torch.tensor([29.0, 37.0])
    boxes = corners.sort(dim=1).values.flatten(1)
    boxes[0] = torch.tensor([0.0, 0.0, 29.0, 37.0])  # to the rim
    boxes[1] = torch.tensor([4.0, 4.0, 4.0, 4.0])  # without size
    rois = torch.cat([torch.arange(40.0)[:, None], boxes], dim=1)
    expected = roi_align(masks[:, None].float(), rois, cells, 1.0, 0, aligned)[:, 0]
    crops = crop_runs(runs_of(masks), boxes, Size(37, 29), cells=cells, aligned=aligned)
    assert torch.allclose(crops, expected, atol=1e-5)
    which = torch.arange(39, -1, -1)
    whole = crop_pixels(masks.flip(0), boxes, which, cells=cells, aligned=aligned)
    assert torch.allclose(whole, crops, atol=1e-6)
    by_runs = crop_runs(runs_of(masks.flip(0)), boxes, Size(37, 29), which=which, cells=cells, aligned=aligned)
    assert torch.equal(by_runs, crops)
    assert crop_pixels(masks, boxes[:0], which[:0], cells=cells).shape == (0, cells, cells)


def test_a_pasted_mask_fills_its_box() -> None:
    mask = pasted(torch.ones(1, 28, 28), torch.tensor([[1.0, 2.0, 4.0, 4.0]]), 5, 6)
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[2:4, 1:4] = True
    assert torch.equal(mask[0], expected)


def test_pasting_interpolates_between_the_centres_of_cells() -> None:
    # Two cells over four pixels: centres of pixels at -0.25, 0.25, 0.75 and 1.25 cells, 0 beside the box.
    masks, box = torch.tensor([[[0.2, 1.0], [0.2, 1.0]]]), torch.tensor([[0.0, 0.0, 4.0, 1.0]])
    for threshold, first, last in ((0.14, 0, 4), (0.16, 1, 4), (0.39, 1, 4), (0.41, 2, 4), (0.74, 2, 4), (0.76, 2, 3)):
        [mask] = pasted(masks, box, 1, 4, threshold=threshold)
        assert mask[0].nonzero().flatten().tolist() == list(range(first, last))


def test_the_threshold_itself_belongs_to_the_object() -> None:
    masks, box = torch.full((1, 1, 1), 0.5), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert pasted(masks, box, 1, 1).item()
    assert not pasted(masks, box, 1, 1, threshold=0.51).item()


def test_a_low_threshold_reaches_half_a_cell_around_the_box() -> None:
    # Four pixels a cell: beside the box 3/8 and 1/8 of the outermost cell are left.
    masks, box = torch.ones(1, 1, 1), torch.tensor([[4.0, 0.0, 8.0, 4.0]])
    [mask] = pasted(masks, box, 4, 12, threshold=0.1)
    assert mask[1].int().tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]


def test_boxes_beyond_the_image_without_size_or_none_at_all_are_pasted() -> None:
    boxes = torch.tensor([[-2.0, -2.0, 2.0, 2.0], [3.0, 3.0, 3.0, 3.0], [50.0, 50.0, 60.0, 60.0]])
    assert pasted(torch.ones(3, 4, 4), boxes, 4, 4).sum(dim=(1, 2)).tolist() == [4, 0, 0]
    assert pasted(torch.ones(0, 4, 4), torch.zeros(0, 4), 4, 4).shape == (0, 4, 4)


def test_a_mask_is_pasted_in_portions_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    masks, boxes = torch.rand(5, 7, 7, generator=random), torch.tensor([[1.0, -1.0, 9.0, 9.0]]).expand(5, 4)
    whole = pasted(masks, boxes, 8, 10)
    monkeypatch.setattr("fpn.ops.masks._CHUNK_PIXELS", 16)
    assert torch.equal(pasted(masks, boxes, 8, 10), whole)
    full = paste_masks(torch.ones(1, 2, 2), torch.tensor([[0.0, 0.0, 10.0, 8.0]]), Size(8, 10), threshold=0.1)
    assert full.spans.tolist() == [[0, 80]]


def sampled(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """The probability of every pixel of the image, by torch's own sampling."""
    centres = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    low, high = boxes[:, None, None, :2], boxes[:, None, None, 2:]
    places = (torch.stack(centres[::-1], dim=-1) - low) / (high - low) * 2 - 1
    return grid_sample(masks[:, None], places, align_corners=False)[:, 0]


def test_runs_are_those_of_all_pixels_at_once() -> None:
    random = torch.Generator().manual_seed(1)
    masks, corners = torch.rand(20, 28, 28, generator=random), torch.rand(20, 2, 2, generator=random) * 90 - 20
    boxes = corners.sort(dim=1).values.flatten(1)
    dense = sampled(masks, boxes, 50, 60)
    close = (dense - 0.5).abs() < 1e-5
    assert torch.equal(pasted(masks, boxes, 50, 60) | close, (dense >= 0.5) | close)


def test_pasted_masks_of_detectron2() -> None:
    figures = case("d2_9_masks")
    probabilities, boxes = (torch.from_numpy(figures[name]) for name in ("probs", "boxes"))
    assert np.array_equal(pasted(probabilities[:, 0], boxes, 90, 120).numpy(), figures["pasted"].astype(bool))
