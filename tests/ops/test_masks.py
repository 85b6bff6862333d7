from __future__ import annotations

import numpy as np
import pycocotools.mask
import pytest
import torch
from parity.golden.cases import case

from fpn.ops.masks import crop_masks, paste_masks, paste_probabilities
from fpn.structures.masks import decode_rle, encode_rle, polygons_to_mask

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


def test_a_crop_shows_what_the_box_holds_of_its_own_mask() -> None:
    boxes = torch.tensor([[1.0, 3.0, 3.0, 5.0], [1.0, 3.0, 3.0, 5.0]])
    masks = torch.stack([torch.zeros_like(LETTER), LETTER])
    crops = crop_masks(masks, boxes, torch.tensor([1, 0]), output_size=2)
    assert crops.tolist() == [[[1, 0], [1, 1]], [[0, 0], [0, 0]]]


def test_a_crop_without_threshold_is_the_covered_part() -> None:
    # 2 x 2 pixels a cell, of which 2, 0, 3 and 1 are set.
    box = torch.tensor([[0.0, 1.0, 4.0, 5.0]])
    soft = crop_masks(LETTER[None], box, torch.tensor([0]), output_size=2, threshold=None)
    assert soft.tolist() == [[[0.5, 0.0], [0.5, 0.5]]]
    assert crop_masks(LETTER[None], box, torch.tensor([0]), output_size=2).tolist() == [[[1, 0], [1, 1]]]
    assert crop_masks(LETTER[None], box, torch.tensor([0]), output_size=2, threshold=0.6).tolist() == [[[0, 0], [0, 0]]]


def test_a_pasted_mask_fills_its_box() -> None:
    pasted = paste_masks(torch.ones(1, 28, 28), torch.tensor([[1.0, 2.0, 4.0, 4.0]]), 5, 6)
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[2:4, 1:4] = True
    assert torch.equal(pasted[0], expected)


def test_pasting_interpolates_between_the_centres_of_cells() -> None:
    # Two cells over four pixels: centres of pixels at -0.25, 0.25, 0.75 and 1.25 cells, 0 beside the box.
    masks, box = torch.tensor([[[0.2, 1.0], [0.2, 1.0]]]), torch.tensor([[0.0, 0.0, 4.0, 1.0]])
    probabilities = paste_probabilities(masks, box, 1, 4)
    assert torch.allclose(probabilities, torch.tensor([[[0.15, 0.4, 0.8, 0.75]]]))


def test_the_threshold_itself_belongs_to_the_object() -> None:
    masks, box = torch.full((1, 1, 1), 0.5), torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert paste_masks(masks, box, 1, 1).item()
    assert not paste_masks(masks, box, 1, 1, threshold=0.51).item()


def test_boxes_beyond_the_image_without_size_or_none_at_all_are_pasted() -> None:
    boxes = torch.tensor([[-2.0, -2.0, 2.0, 2.0], [3.0, 3.0, 3.0, 3.0], [50.0, 50.0, 60.0, 60.0]])
    pasted = paste_masks(torch.ones(3, 4, 4), boxes, 4, 4)
    assert pasted.sum(dim=(1, 2)).tolist() == [4, 0, 0]
    assert paste_masks(torch.ones(0, 4, 4), torch.zeros(0, 4), 4, 4).shape == (0, 4, 4)


def test_many_masks_are_pasted_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    masks, boxes = torch.rand(5, 7, 7, generator=random), torch.tensor([[1.0, 1.0, 9.0, 7.0]]).expand(5, 4)
    whole = paste_masks(masks, boxes, 8, 10)
    monkeypatch.setattr("fpn.ops.masks._CHUNK_PIXELS", 160)
    assert torch.equal(paste_masks(masks, boxes, 8, 10), whole)


def test_pasted_masks_of_detectron2() -> None:
    figures = case("d2_9_masks")
    probabilities, boxes = (torch.from_numpy(figures[name]) for name in ("probs", "boxes"))
    pasted = paste_masks(probabilities[:, 0], boxes, 90, 120)
    assert np.array_equal(pasted.numpy(), figures["pasted"].astype(bool))
    eighths = (paste_probabilities(probabilities[:, 0], boxes, 90, 120) * 255).to(torch.uint8)
    assert np.abs(eighths.numpy().astype(int) - figures["pasted_uint8"]).max() <= 1


def test_run_lengths_go_down_the_columns_and_begin_with_zeros() -> None:
    assert encode_rle(LETTER, compressed=False) == {"size": [6, 5], "counts": [6, 5, 5, 1, 5, 1, 7]}
    assert encode_rle(torch.ones(2, 2, dtype=torch.bool), compressed=False)["counts"] == [0, 4]
    assert encode_rle(torch.zeros(2, 2, dtype=torch.bool), compressed=False)["counts"] == [4]


@pytest.mark.parametrize("compressed", [True, False])
def test_a_mask_survives_its_run_lengths(compressed: bool) -> None:
    mask = torch.rand(31, 17, generator=torch.Generator().manual_seed(5)) > 0.6
    for some in (mask, LETTER, torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool)):
        assert torch.equal(decode_rle(encode_rle(some, compressed=compressed)), some)


def test_compressed_run_lengths_are_pycocotools_own() -> None:
    theirs = pycocotools.mask.encode(np.asfortranarray(LETTER.numpy().astype(np.uint8)))
    assert encode_rle(LETTER)["counts"] == theirs["counts"].decode()


def test_polygons_are_filled_and_united() -> None:
    mask = polygons_to_mask([[0, 0, 2, 0, 2, 2, 0, 2], [3, 3, 5, 3, 5, 4, 3, 4]], 5, 6)
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[0:2, 0:2] = True
    expected[3:4, 3:5] = True
    assert torch.equal(mask, expected)


def test_polygons_of_fewer_than_three_corners_are_empty() -> None:
    assert not polygons_to_mask([[0, 0, 2, 2]], 4, 4).any()
    assert not polygons_to_mask([], 4, 4).any()
