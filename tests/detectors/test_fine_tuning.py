from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fpn
from fpn.detectors import TwoStageDetector
from fpn.detectors.fine_tuning import take_weights
from fpn.errors import ConfigError

SMALL = {"backbone": "tf_efficientnet_lite0", "weights": None, "short_side": 64, "channels": 8, "head_width": 8}


def made(*classes: str, **settings: object) -> TwoStageDetector:
    return fpn.faster_rcnn(classes=classes, **{**SMALL, **settings})


def rows(detector: TwoStageDetector) -> tuple[torch.Tensor, torch.Tensor]:
    box = detector.roi_heads.box
    return box.scores.weight, box.deltas.weight


# Some toolkits' files have background first; inside our heads it is the last in each.
@pytest.mark.parametrize("background", ["last", "first"])
def test_weights_of_classes_follow_their_names_and_all_others_stay(background: str) -> None:
    before = made("bolt", "nut", "washer", box_background=background)
    now, carried = fpn.begin_with(before, classes=["nut", "gear", "bolt"])
    (old_scores, old_boxes), (scores, boxes) = rows(before), rows(now)
    for label, known in ((0, 1), (2, 0), (3, 3)):  # nut, bolt, background
        assert torch.equal(scores[label], old_scores[known])
    assert not torch.equal(scores[1], old_scores[2])  # gear is not the washer that stood there
    assert torch.equal(boxes[0:4], old_boxes[4:8])
    assert torch.equal(boxes[8:12], old_boxes[0:4])
    assert (carried.kept, carried.fresh, carried.left) == (("nut", "bolt"), ("gear",), ("washer",))
    old, new = before.state_dict(), now.state_dict()
    others = [name for name in new if not name.startswith(("roi_heads.box.scores", "roi_heads.box.deltas"))]
    assert len(others) == len(new) - 4
    assert all(torch.equal(new[name], old[name]) for name in others)
    assert now.recipe.dialect == before.recipe.dialect


def test_boxes_that_all_classes_share_are_taken_whole() -> None:
    before = made("bolt", "nut", box_class_agnostic=True)
    now, _ = fpn.begin_with(before, classes=["gear"])
    assert torch.equal(rows(now)[1], rows(before)[1])
    assert rows(now)[1].shape == (4, 8)


def test_with_the_same_classes_a_model_file_comes_back_whole(small: TwoStageDetector, tmp_path: Path) -> None:
    path = fpn.save(small, tmp_path / "model.safetensors")
    now, carried = fpn.begin_with(path, classes=fpn.Classes(("cell", "platelet"), (1, 2)))
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in now.state_dict().items())
    assert now.classes.ids == (1, 2)  # those of the data
    assert str(carried) == f"begins with {path}\n  classes kept: cell, platelet"


def test_what_is_told_names_every_class_and_near_misses_and_changed_settings(small: TwoStageDetector) -> None:
    now, carried = fpn.begin_with(small, classes=["Cell ", "platelet", "X"], box_limit=300, short_side=96)
    assert now.max_detections == 300
    assert str(carried).splitlines() == [
        "begins with a TwoStageDetector",
        "  classes kept: platelet",
        "  begun anew, as the model does not know them: Cell , X",
        "  left behind, as the data does not have them: cell",
        "  'Cell ' is not the model's 'cell': if they are the same, write it 'cell' in the data",
        "  set otherwise than in the model: pixels.short_side 64 -> 96, pixels.long_side 107 -> 160, "
        "box.limit 10 -> 300",
    ]
    assert carried.to_dict()["alike"] == [("Cell ", "cell")]


def test_weights_that_do_not_fit_are_named_and_nothing_is_taken(small: TwoStageDetector) -> None:
    wide = made("cell", head_width=24)
    before = {name: tensor.clone() for name, tensor in wide.state_dict().items()}
    with pytest.raises(ConfigError, match=r"mine: its weights do not fit .*roi_heads\.box\.\S+ is \(\d.*and \d+ more"):
        take_weights(wide, small, name="mine")
    assert all(torch.equal(tensor, before[name]) for name, tensor in wide.state_dict().items())


@pytest.mark.parametrize(
    ("setting", "value", "own"),
    [("backbone", "resnet18", "tf_efficientnet_lite0"), ("neck", "bottom_up", "fpn"), ("dialect", "paperr", "paper")],
)
def test_another_backbone_neck_or_dialect_than_the_models_is_refused(
    small: TwoStageDetector, setting: str, value: str, own: str
) -> None:
    with pytest.raises(ConfigError, match=f"{setting} '{value}': the model to begin with has '{own}'"):
        fpn.begin_with(small, classes=["cell"], **{setting: value})


def test_what_tells_no_classes_apart_begins_with_whatever_classes_the_data_has() -> None:
    small = {name: value for name, value in SMALL.items() if name != "head_width"}
    before = fpn.segment_proposals(**small, segments_width=8)
    now, carried = fpn.begin_with(before, classes=["nut", "gear"])
    assert (list(now.classes), carried.kept, carried.fresh) == (["object"], ("object",), ())
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in now.state_dict().items())
    with pytest.raises(ConfigError, match="tell none apart"):
        fpn.segment_proposals(**small, classes=["nut"])
