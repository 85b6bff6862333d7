"""What is told of the inside of a model, with numbers that can be checked by hand."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts.test_detectors import KINDS, SMALL
from export.test_exported import OUTPUTS, Runtime
from PIL import Image
from studies.diagnosis.planted import CANONICAL, LEVELS, SIDE, detector, images

import fpn
from fpn.detectors import Detector
from fpn.drawing import cut_score
from fpn.export.exported import ExportedDetector
from fpn.export.header import GraphInfo
from fpn.heads.roi_pooler import RoIConfig, RoIPooler
from fpn.preprocessing.frame import Frame
from fpn.serving.equation_sentences import readings_of
from fpn.serving.inside import look_inside, why_not
from fpn.serving.inside_figures import (
    MAP_SIDE,
    SHOWN,
    anchor_places,
    describe_level,
    draw_map,
    ranked,
    shown_boxes,
)
from fpn.serving.inside_two_stage import look_into_two_stage
from fpn.shapes import Size
from fpn.structures import Level, Targets

# The network sees twice the original's pixels.
TWICE = Frame(Size(40, 60), Size(80, 120), (2.0, 2.0))
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8))


def pooler(levels: tuple[Level, ...] = LEVELS[:4], **config: object) -> RoIPooler:
    return RoIPooler(levels=levels, config=RoIConfig(**config))


def read(box: list[int], made: RoIPooler) -> list[object]:
    (found,) = readings_of("Box head", made, torch.tensor([box]).float(), Size(512, 512))
    return [found.level, found.side, found.value, found.number, found.clamped, found.sentence]


# --- equation 1 -------------------------------------------------------------------------------------------------------


def test_a_roi_of_half_the_canonical_side_is_read_from_the_level_below() -> None:
    assert read([0, 0, 112, 112], pooler()) == [
        "p3",
        112.0,
        3.0,
        3,
        False,
        "Box head: s = √(112.0 x 112.0) = 112.0 network pixels; k = floor(4 + log2(112.0 / 224)) = floor(3.00) = 3, "
        "so p3",
    ]


def test_a_roi_that_is_too_small_or_too_large_for_the_levels_goes_to_the_nearest_one() -> None:
    small = read([10, 10, 40, 20], pooler())  # √300 = 17.32; 4 + log2(17.32 / 224) = 0.307
    assert small[:5] == ["p2", 17.32, round(4 + math.log2(math.sqrt(300) / 224), 4), 0, True]
    assert str(small[5]).endswith("= floor(0.31) = 0, which this head does not have: the finest that it has is p2")
    large = read([0, 0, 1000, 1000], pooler(LEVELS[:3]))  # 4 + log2(1000 / 224) = 6.16
    assert large[:1] + large[3:5] == ["p4", 6, True]
    assert str(large[5]).endswith("the coarsest that it has is p4")


def test_other_rules_and_sides_that_count_a_pixel_more_are_told_as_they_are() -> None:
    rounded = read([0, 0, 180, 180], pooler(level_rule="round_ln", canonical_level=4))  # 4 + ln(180 / 224) = 3.78
    assert rounded[3] == 4
    assert "round(4 + ln(180.0 / 224)) = round(3.78) = 4" in str(rounded[5])
    legacy = RoIPooler(levels=LEVELS[:4], config=RoIConfig(), legacy_plus_one=True)
    assert read([0, 0, 111, 111], legacy)[:3] == ["p3", 112.0, 3.0]


def test_one_level_and_a_box_without_an_area_have_no_equation() -> None:
    assert read([0, 0, 50, 50], pooler(LEVELS[2:3]))[5] == "Box head: it reads one level only, p4"
    empty = read([5, 5, 5, 30], pooler())
    assert empty[:5] == ["p2", 0.0, None, None, False]


def test_each_detection_comes_from_the_level_that_its_object_is_painted_on() -> None:
    boxes = torch.tensor([[8.0, 8.0, 48.0, 48.0], [100.0, 100.0, 228.0, 228.0]])  # sides 40 and 128, canonical 56
    made = detector([Targets(boxes, torch.tensor([0, 1]))])
    with torch.inference_mode():
        found = look_into_two_stage(made, images(1), Frame(Size(SIDE, SIDE), Size(SIDE, SIDE), (1.0, 1.0)))
    sure = sorted((each for each in found.detections if each.score > 0.5), key=lambda each: str(each.level))
    assert [(each.level, each.label) for each in sure] == [("p3", 0), ("p5", 1)]
    # log2(40 / 56) = -0.49 and log2(128 / 56) = 1.19, above k0 = 4.
    assert [each.readings[0].number for each in sure] == [3, 5]
    assert [each.readings[0].value for each in sure] == [
        pytest.approx(4 + math.log2(side / CANONICAL), abs=0.05) for side in (40, 128)
    ]
    assert "from the anchor of 32 x 32 network pixels of p3" in sure[0].why[0]


# --- levels -----------------------------------------------------------------------------------------------------------


def test_a_map_is_the_root_mean_square_of_the_channels_from_0_to_its_highest() -> None:
    highest, png = draw_map(torch.tensor([[[3.0, 0.0], [1.5, 0.3]], [[4.0, 0.0], [2.0, 0.4]]]))
    assert highest == pytest.approx(math.sqrt((9 + 16) / 2), abs=1e-5)
    image = Image.open(io.BytesIO(png))
    # Half and a tenth of the highest: 127.5, half to even, and 25.5.
    assert (image.mode, np.asarray(image).tolist()) == ("L", [[255, 0], [128, 26]])


def test_a_map_of_zeros_or_without_finite_values_is_black() -> None:
    for value in (0.0, torch.inf, torch.nan):
        highest, png = draw_map(torch.full((2, 2, 2), value))
        assert (highest, np.asarray(Image.open(io.BytesIO(png))).max()) == (0.0, 0)


def test_a_map_of_many_cells_is_drawn_with_fewer() -> None:
    _, png = draw_map(torch.ones(1, 300, 2 * MAP_SIDE))
    assert Image.open(io.BytesIO(png)).size == (MAP_SIDE, 150)


def test_cells_lie_where_they_see_the_original_and_padding_is_left_out() -> None:
    level = Level("p3", 4, 8, 3)
    told = describe_level(level, torch.ones(4, 16, 16), Size(80, 120), TWICE, read_by=("rpn",), places=None)
    assert (told.rows, told.columns, told.cell) == (10, 15, (0.0, 0.0, 4.0, 4.0))
    letterbox = Frame(Size(40, 60), Size(128, 128), (2.0, 2.0), offset=(24.0, 4.0), content=Size(80, 120))
    told = describe_level(level, torch.ones(4, 16, 16), Size(128, 128), letterbox, read_by=(), places=None)
    assert (told.rows, told.columns, told.cell) == (16, 16, (-2.0, -12.0, 2.0, -8.0))


def test_anchors_of_the_first_cell_are_told_and_the_step_to_the_next() -> None:
    first = torch.tensor([[-16.0, -16.0, 16.0, 16.0], [-32.0, -8.0, 32.0, 8.0]])
    moves = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]]).repeat(1, 2)
    grid = (first[None] + moves[:, None]).reshape(-1, 4)
    told = anchor_places(grid, 2, 2, 2, TWICE)
    assert told.step == (4.0, 4.0)
    assert [(each.size, each.ratio, each.box) for each in told.shapes] == [
        (32.0, 1.0, (-8.0, -8.0, 8.0, 8.0)),
        (32.0, 0.25, (-16.0, -4.0, 16.0, 4.0)),
    ]


# --- lists ------------------------------------------------------------------------------------------------------------


def test_lists_are_cut_and_their_counts_are_not() -> None:
    count = SHOWN + 100
    boxes = torch.tensor([[0.0, 0.0, 20.0, 10.0]]).repeat(count, 1)
    told = ranked(TWICE, boxes, torch.linspace(0, 1, count), torch.arange(count) % 3, count=4)
    assert (told.count, told.by_level) == (600, (200, 200, 200, 0))
    assert len(told.boxes) == len(told.scores) == len(told.levels) == len(told.kept) == SHOWN
    assert (told.boxes[0], told.scores[0], told.levels[0]) == ((0.0, 0.0, 10.0, 5.0), 1.0, 599 % 3)


def test_boxes_are_cut_at_the_rim_and_rounded_where_the_dialect_rounds() -> None:
    box = torch.tensor([[-4.0, 3.0, 130.0, 20.5]])
    assert shown_boxes(box, TWICE, whole_pixels=False) == ((0.0, 1.5, 60.0, 10.25),)
    assert shown_boxes(box, TWICE, whole_pixels=True) == ((0.0, 2.0, 60.0, 10.0),)


def test_a_score_of_996_thousandths_is_not_called_1() -> None:
    assert [cut_score(score) for score in (0.996, 1.0, 0.0)] == ["0.99", "1.00", "0.00"]


# --- every kind -------------------------------------------------------------------------------------------------------


def made(kind: str) -> Detector:
    torch.manual_seed(0)
    found = KINDS[kind]()
    generator = torch.Generator().manual_seed(1)
    for name, weight in found.named_parameters():
        if weight.ndim == 2 or (weight.ndim == 4 and weight.shape[2] == 1 and "backbone" not in name):
            weight.data.normal_(0, 0.2, generator=generator)
        if name.startswith("head.") and weight.ndim == 4:
            weight.data.normal_(0, 0.02 if "deltas" in name else 0.15, generator=generator)
    return found.eval()


# Heads that read the finest level.
READERS = {
    "faster_rcnn": ("RPN", "box head"),
    "cascade_rcnn": ("RPN", "box head, stage 1", "box head, stage 2", "box head, stage 3"),
    "mask_rcnn": ("RPN", "box head", "mask head"),
    "cascade_rcnn with masks": ("RPN", "box head, stage 1", "box head, stage 2", "box head, stage 3", "mask head"),
    "keypoint_rcnn": ("RPN", "box head", "keypoint head"),
    "retinanet": ("head",),
    "fcos": ("head",),
    "atss": ("head",),
}


@pytest.mark.parametrize("kind", READERS)
def test_what_is_told_of_every_kind_is_what_it_predicts(kind: str) -> None:
    model = fpn.optimize(made(kind)) if kind == "mask_rcnn" else made(kind)
    told = look_inside(model, PHOTO)
    (found,) = model.predict([PHOTO])
    assert (told.count, len(told.detections)) == (len(found), len(found))
    assert told.count > 0
    boxes, scores = torch.tensor([each.box for each in told.detections]), [each.score for each in told.detections]
    torch.testing.assert_close(boxes, found.boxes, atol=0.006, rtol=0)
    assert scores == pytest.approx(found.scores.tolist(), abs=1e-4)
    assert [each.label for each in told.detections] == found.labels.tolist()
    assert told.levels[0].read_by == READERS[kind]
    assert {each.level for each in told.detections} <= {level.name for level in told.levels}
    assert all(each.why and each.origin is not None for each in told.detections)
    said = [each.why[-1] for each in told.detections if "centre-ness" in each.why[-1]]
    assert said == [] or all(f"= {cut_score(each.score)}." in each.why[-1] for each in told.detections)
    selection = told.selection
    assert selection is not None
    assert sum(selection.before.by_level) == selection.before.count
    assert sum(selection.after.by_level) == selection.after.count <= selection.before.count
    assert all(before <= places * 2 for before, places in zip(selection.before.by_level, selection.places, strict=True))
    assert len(json.dumps(told.to_json(), allow_nan=False)) < 2**18


def test_the_proposals_that_are_told_are_those_that_the_detector_makes() -> None:
    model = made("faster_rcnn")
    selection = look_inside(model, PHOTO).selection
    prepared = model.preprocessor.prepare(PHOTO)
    with torch.inference_mode():
        (proposals,) = model.proposals(model.preprocessor.collate([prepared.pixels], [prepared.frame]))
    assert selection is not None
    assert selection.after.count == len(proposals)
    torch.testing.assert_close(
        torch.tensor(selection.after.boxes), prepared.frame.to_original(proposals.boxes), atol=0.006, rtol=0
    )
    kept = [box for box, stays in zip(selection.before.boxes, selection.before.kept, strict=True) if stays]
    assert kept == list(selection.after.boxes[: len(kept)])


def test_top_k_over_all_levels_together_knows_the_levels_too() -> None:
    torch.manual_seed(0)
    model = fpn.faster_rcnn(**SMALL, head_width=8, rpn_scope="all", rpn_before_nms=(50, 50), rpn_after_nms=(20, 20))
    selection = look_inside(model.eval(), PHOTO).selection
    assert selection is not None
    assert (selection.before.count, sum(selection.before.by_level)) == (50, 50)
    assert selection.rule == "NMS over all levels together at IoU 0.7; at most 20 remain"


def test_a_head_without_anchors_tells_its_points_and_what_they_learn() -> None:
    told = look_inside(made("fcos"), PHOTO)
    finest, coarsest = told.levels[0].places, told.levels[-1].places
    assert finest is not None
    assert coarsest is not None
    assert finest.what == "point"
    assert finest.learns == "objects whose farthest side is 0 to 64 network pixels away"
    assert coarsest.learns == "objects whose farthest side is 512 or more network pixels away"
    # Stride 8 is 10 pixels of an image that the network sees at 64 instead of 80; the point stands in the middle.
    assert finest.shapes[0].box == (5.0, 5.0, 5.0, 5.0)
    assert finest.step == (10.0, 10.0)


def test_a_proposer_of_segments_shows_its_levels_and_says_what_it_does_not_show() -> None:
    model = made("segment_proposals")
    told = look_inside(model, PHOTO)
    assert [level.name for level in told.levels][:2] == ["p2", "p3"]
    assert (told.selection, told.note) == (None, why_not(model))
    assert "segments" in str(told.note)


def test_an_exported_file_shows_its_detections_and_says_why_no_more() -> None:
    made_of = made("faster_rcnn")
    header = json.loads(json.dumps(GraphInfo("original", OUTPUTS).header(made_of)))
    exported = ExportedDetector(Runtime(), header, where="a.onnx")
    told = look_inside(exported, PHOTO)
    assert (told.image, told.network) == (Size(80, 100), look_inside(made_of, PHOTO).network)
    assert told.network == Size(64, 80)
    assert [(each.box, each.score, each.label, each.level) for each in told.detections] == [
        ((0.0, 0.0, 50.0, 40.0), 0.75, 1, None)
    ]
    assert (told.levels, told.selection) == ((), None)
    assert str(told.note).startswith("This is an exported file")


def test_what_is_told_is_json_with_maps_as_data_urls() -> None:
    told = look_inside(made("mask_rcnn"), PHOTO)
    found = json.loads(json.dumps(told.to_json(), allow_nan=False))
    assert found["image"] == {"width": 100, "height": 80}
    assert found["network"] == {"width": 80, "height": 64}
    assert all(level["map"].startswith("data:image/png;base64,") for level in found["levels"])
    assert replace(told, levels=()).to_json()["levels"] == ()
