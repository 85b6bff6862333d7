from __future__ import annotations

import pickle

import pycocotools.mask
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fpn.errors import ConfigError, DataError
from fpn.shapes import Size
from fpn.structures import Masks

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = Size(6, 8)
# Rows 1 to 3, columns 2 to 4, as a polygon; and two pixels, (4, 0) and (5, 0), as a code.
SQUARE = [[2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0]]
CODE = {"size": [6, 8], "counts": [4, 2, 42]}


def both() -> Masks:
    return Masks.from_coco([SQUARE, CODE], SIZE)


def pixels(masks: Masks) -> list[list[int]]:
    """Top, left, bottom, right and number of the set pixels of each mask."""
    found = []
    for mask in masks.dense():
        y, x = mask.nonzero().T
        found.append([int(y.min()), int(x.min()), int(y.max()) + 1, int(x.max()) + 1, len(y)] if len(y) else [0] * 5)
    return found


def test_polygons_and_codes_stay_what_they_are() -> None:
    masks = both()
    assert masks.to_coco(compressed=False) == [SQUARE, CODE]
    assert repr(masks) == "<Masks of 2 objects in 8 x 6 pixels: 1 of polygons, 1 of run lengths>"
    assert masks.coded.tolist() == [False, True]


def test_pixels_areas_and_boxes() -> None:
    masks = both()
    assert pixels(masks) == [[1, 2, 4, 5, 9], [4, 0, 6, 1, 2]]
    assert masks.areas().tolist() == [9, 2]
    assert masks.boxes().tolist() == [[2, 1, 5, 4], [0, 4, 1, 6]]


def test_results_are_compressed_codes_that_pycocotools_reads() -> None:
    codes = both().to_coco(polygons=False)
    assert [int(pycocotools.mask.area({**code, "counts": code["counts"].encode()})) for code in codes] == [9, 2]
    assert Masks.from_coco(codes, SIZE).dense().equal(both().dense())


def test_compressed_codes_are_read_as_text_and_bytes() -> None:
    [code] = both()[1].to_coco()
    for counts in (code["counts"], code["counts"].encode()):
        assert Masks.from_coco([{"size": [6, 8], "counts": counts}], SIZE) == both()[1]


def test_some_masks_are_chosen_by_numbers_flags_and_slices() -> None:
    masks = both()
    assert masks[torch.tensor([1, 0, 1])].areas().tolist() == [2, 9, 2]
    assert masks[torch.tensor([False, True])] == masks[1:] == masks[-1] == masks[[1]]
    assert len(masks[torch.zeros(0, dtype=torch.int64)]) == len(masks[5:]) == 0
    assert [each.areas().item() for each in masks] == [9, 2]
    with pytest.raises(IndexError):
        masks[2]
    with pytest.raises(IndexError):
        masks[torch.tensor([True, False, True])]


def test_masks_are_equal_if_their_outlines_and_sizes_are() -> None:
    assert both() == both()
    assert both() != both()[torch.tensor([1, 0])]
    assert both()[0] != Masks.from_coco([SQUARE], Size(6, 9))
    assert both()[0] != Masks.from_dense(both()[0].dense(), SIZE)  # the same pixels, another outline
    assert both() != "masks"


def test_masks_travel_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(both())) == both()


def test_no_masks_have_no_pixels() -> None:
    none = Masks.empty(SIZE)
    assert (len(none), none.dense().shape, none.boxes().shape) == (0, (0, 6, 8), (0, 4))
    assert none.to_coco() == []
    assert none.crop(torch.zeros(0, 4), 7).shape == (0, 7, 7)
    assert len(none.resized(Size(3, 4)).flipped().clipped()) == 0
    assert Masks.from_dense(torch.zeros(0, 6, 8, dtype=torch.bool), SIZE) != both()


def test_a_mask_without_outline_is_empty_and_keeps_its_place() -> None:
    masks = Masks.from_coco([[], SQUARE, [[1.0, 1.0, 2.0, 2.0]]], SIZE)
    assert masks.areas().tolist() == [0, 9, 0]
    assert masks.boxes().tolist() == [[0] * 4, [2, 1, 5, 4], [0] * 4]
    assert masks.crop(torch.tensor([[2.0, 1.0, 5.0, 4.0]] * 3), 3).sum(dim=(1, 2)).tolist() == [0, 9, 0]


def test_masks_of_boxes_and_from_pixels_and_joined() -> None:
    boxes = torch.tensor([[2.0, 1.0, 5.0, 4.0]])
    assert Masks.of_boxes(boxes, SIZE) == both()[0]
    assert Masks.from_dense(both()[1].dense(), SIZE) == both()[1]
    assert Masks.concatenate([both()[1], both()]) == both()[[1, 0, 1]]


def test_probabilities_become_codes() -> None:
    masks = Masks.from_probabilities(torch.ones(1, 28, 28), torch.tensor([[2.0, 1.0, 5.0, 4.0]]), SIZE)
    assert (pixels(masks), masks.coded.tolist()) == ([[1, 2, 4, 5, 9]], [True])


def test_all_pixels_at_once_are_bounded() -> None:
    assert both().dense(max_pixels=96).shape == (2, 6, 8)
    with pytest.raises(DataError, match=r"2 masks of 8 x 6 have 96 pixels, more than the limit of 95 pixels"):
        both().dense(max_pixels=95)
    huge = Masks.of_boxes(torch.tensor([[0.0, 0.0, 4000.0, 3000.0]]).expand(300, 4), Size(3000, 4000))
    with pytest.raises(DataError, match="3600 million pixels"):
        huge.dense()


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ({"size": [9, 9], "counts": [81]}, "run-length code for height, width"),
        ({"size": [6, 8], "counts": [5]}, "do not add up"),
        ({"size": [6, 8], "counts": 48}, "counts of type int"),
        ({"size": [6, 8], "counts": "\x7f"}, "none of COCO's code"),
        ([[1.0, 1.0, 2.0, 1.0, 2.0, 2.0, 3.0]], "an odd count"),
        ([[1.0, 1.0, 1e9, 1.0, 2.0, 2.0]], "reaches far out"),
        ([[1.0, 1.0, float("nan"), 1.0, 2.0, 2.0]], "reaches far out"),
        ([[1.0, 1.0, 2.0, 2.0] * 70_000], "polygons of 140000 corners"),
    ],
)
def test_a_broken_outline_is_refused_with_its_number(segmentation: object, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        Masks.from_coco([SQUARE, segmentation], SIZE)
    assert str(caught.value).startswith("object 2: broken segmentation")


# --- moving ---


def test_flips_mirror_both_kinds() -> None:
    assert pixels(both().flipped()) == [[1, 3, 4, 6, 9], [4, 7, 6, 8, 2]]
    assert pixels(both().flipped(vertical=True)) == [[2, 2, 5, 5, 9], [0, 0, 2, 1, 2]]
    assert pixels(both().flipped().flipped()) == pixels(both())


def test_resizing_scales_both_kinds() -> None:
    assert pixels(both().resized(Size(12, 24))) == [[2, 6, 8, 15, 54], [8, 0, 12, 3, 12]]
    assert pixels(both().resized(Size(12, 24)).resized(SIZE)) == pixels(both())


def test_shifting_lays_the_image_on_a_canvas_and_cuts_what_is_beyond() -> None:
    assert pixels(both().shifted(top=2, left=3, size=Size(10, 12))) == [[3, 5, 6, 8, 9], [6, 3, 8, 4, 2]]
    cut = both().shifted(top=-2, left=-3, size=Size(4, 5))
    assert pixels(cut) == [[0, 0, 2, 2, 4], [0, 0, 0, 0, 0]]
    assert cut.boxes().tolist() == [[0, 0, 2, 2], [0, 0, 0, 0]]
    assert cut.polygons.points.min().item() == -1.0
    assert cut.clipped().polygons.points.min().item() == 0.0
    assert pixels(cut.clipped()) == pixels(cut)


DENSE = st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=6, max_size=6).map(torch.tensor)


@settings(deadline=None, max_examples=60)
@given(DENSE, st.integers(-7, 7), st.integers(-9, 9))
def test_moving_a_code_is_moving_its_pixels(mask: Tensor, top: int, left: int) -> None:
    masks = Masks.from_dense(mask[None], SIZE)
    assert masks.flipped().dense()[0].equal(mask.flip(1))
    assert masks.flipped(vertical=True).dense()[0].equal(mask.flip(0))
    doubled = mask.repeat_interleave(2, 0).repeat_interleave(3, 1)
    assert masks.resized(Size(12, 24)).dense()[0].equal(doubled)
    canvas = torch.zeros(30, 40, dtype=torch.bool)
    canvas[10 + top : 16 + top, 12 + left : 20 + left] = mask
    assert masks.shifted(top=top, left=left, size=Size(9, 11)).dense()[0].equal(canvas[10:19, 12:23])


# --- the loss ---


def test_a_crop_is_what_the_box_shows() -> None:
    # The square lies in the right half of the first box; of the code's two pixels the second box shows the upper.
    boxes = torch.tensor([[-1.0, 1.0, 5.0, 4.0], [0.0, 3.0, 2.0, 5.0]])
    crops = both().crop(boxes, 2)
    assert crops.tolist() == [[[0, 1], [0, 1]], [[0, 0], [1, 0]]]
    assert crops.dtype == torch.float32


def test_a_crop_by_pixels_is_soft_without_a_threshold() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    soft = both()[0].crop(boxes, 2, sampling="pixels", threshold=None)
    # Of the four pixels of each cell 0, 2, 0 and 4 are set: rows 1 to 3, columns from 2 on.
    assert soft.tolist() == [[[0.0, 0.5], [0.0, 1.0]]]
    assert both()[0].crop(boxes, 2, sampling="pixels").tolist() == [[[0, 1], [0, 1]]]


@pytest.mark.parametrize("sampling", ["outline", "pixels"])
def test_many_boxes_of_few_masks_are_cut_as_each_alone(sampling, monkeypatch) -> None:
    random = torch.Generator().manual_seed(0)
    boxes = (torch.rand(9, 2, 2, generator=random) * torch.tensor([6.0, 5.0])).sort(dim=1).values.flatten(1)
    which = torch.tensor([1, 0, 0, 1, 1, 0, 1, 1, 0])
    apart = [both()[int(k)].crop(box[None], 3, sampling=sampling) for box, k in zip(boxes, which, strict=True)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(both().crop(boxes, 3, which=which, sampling=sampling), torch.cat(apart))
    monkeypatch.setattr("fpn.structures.masks._DENSE_TOGETHER", 1)
    exact = both().crop(boxes, 3, which=which, sampling="pixels", threshold=None)
    torch.testing.assert_close(both()._crop_pixels(boxes, which, 3, True), exact, rtol=0, atol=1e-6)  # as a GPU does


def test_a_crop_needs_a_box_a_mask_and_a_known_sampling() -> None:
    with pytest.raises(AssertionError, match="1 boxes for 2 masks"):
        both().crop(torch.zeros(1, 4), 2)
    with pytest.raises((ConfigError, TypeError), match="dense"):  # types are checked in tests
        both().crop(torch.zeros(2, 4), 2, sampling="dense")


def test_rows_and_columns_are_exchanged_in_both_kinds() -> None:
    turned = both().transposed()
    assert (turned.size, turned.coded.tolist()) == ((8, 6), [False, True])
    assert pixels(turned) == [[2, 1, 5, 4, 9], [0, 4, 1, 6, 2]]
    assert turned.transposed() == both()
    assert len(Masks.empty(SIZE).transposed()) == 0
