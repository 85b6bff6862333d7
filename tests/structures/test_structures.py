from __future__ import annotations

import json
import sys
import types

import pytest
import torch

from fpn.errors import ConfigError, MissingExtraError
from fpn.shapes import Size
from fpn.structures import Classes, Detections, LossTerms, Masks, Targets


def test_classes_are_their_names_in_label_order() -> None:
    classes = Classes(("cell", "platelet"), (7, 3))
    assert classes[1] == "platelet"
    assert list(classes) == ["cell", "platelet"]
    assert len(classes) == 2
    assert "cell" in classes


def test_plain_names_get_ids_from_one() -> None:
    assert Classes.of(["a", "b"]).ids == (1, 2)
    kept = Classes(("a",), (90,))
    assert Classes.of(kept) is kept


@pytest.mark.parametrize(("names", "ids"), [(("a", "a"), (1, 2)), (("a", "b"), (1, 1)), (("a",), (1, 2))])
def test_classes_that_contradict_themselves_are_refused(names, ids) -> None:
    with pytest.raises(ConfigError):
        Classes(names, ids)


def test_one_string_is_not_a_list_of_names() -> None:
    with pytest.raises(ConfigError, match=r"expected a list of names"):
        Classes.of("cell")


@pytest.mark.parametrize("name", ["", "  ", "red\ncell", "bell\a", "half \ud83d"])
def test_names_that_no_dataset_could_hold_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"classes\[1\]='.*': expected a name of letters that can be printed"):
        Classes.of(["cell", name])
    assert Classes.of(["Schäden, 1", "血球 🩸"]).names == ("Schäden, 1", "血球 🩸")


def _found() -> Detections:
    boxes = torch.tensor([[1.0, 2.0, 11.0, 22.0], [0.0, 0.0, 5.0, 5.0]])
    return Detections(boxes, torch.tensor([0.9, 0.4]), torch.tensor([1, 0]))


def test_detections_are_chosen_by_a_mask() -> None:
    found = _found()
    sure = found[found.scores > 0.8]
    assert len(sure) == 1
    assert sure.labels.tolist() == [1]


def test_coco_records_have_xywh_and_original_ids() -> None:
    records = _found().to_coco(image_id=42, classes=Classes(("a", "b"), (10, 90)))
    assert records[0]["bbox"] == [1.0, 2.0, 10.0, 20.0]
    assert [r["category_id"] for r in records] == [90, 10]
    assert {r["image_id"] for r in records} == {42}
    assert records[0]["score"] == pytest.approx(0.9)


def test_targets_without_flags_ignore_nothing() -> None:
    targets = Targets(torch.zeros(2, 4), torch.tensor([0, 1]))
    assert targets.ignore.tolist() == [False, False]
    assert len(Targets.empty()) == 0


def test_loss_terms_add_up() -> None:
    first = LossTerms({"a": torch.tensor(1.0)}, {"seen": torch.tensor(3)})
    both = first + LossTerms({"b": torch.tensor(0.5)})
    assert float(both.total) == 1.5
    assert both.detach() == {"a": 1.0, "b": 0.5, "seen": 3.0, "total": 1.5}
    with pytest.raises(AssertionError, match="two parts report"):
        first + first


SIZE = Size(30, 40)


def _with_all() -> Detections:
    found = _found()
    return Detections(
        found.boxes,
        found.scores,
        found.labels,
        masks=Masks.of_boxes(found.boxes, SIZE),
        keypoints=torch.tensor([[[1.0, 2.0, 0.5]], [[3.0, 4.0, 0.25]]]),
        levels=torch.tensor([3, 2]),
        origins=found.boxes + 1,
        mask_probabilities=torch.stack([torch.zeros(2, 2), torch.ones(2, 2)]),
    )


def test_everything_that_was_found_is_chosen_together() -> None:
    last = _with_all()[torch.tensor([False, True])]
    assert last.masks.boxes().tolist() == last.boxes.tolist() == [[0, 0, 5, 5]]
    assert last.keypoints.tolist() == [[[3, 4, 0.25]]]
    assert (last.levels.tolist(), last.origins.tolist()) == ([2], [[1, 1, 6, 6]])
    assert last.mask_probabilities.tolist() == [[[1, 1], [1, 1]]]
    assert last.to("cpu").masks == last.masks


def test_coco_records_have_masks_and_keypoints() -> None:
    records = _with_all().to_coco(image_id=1, classes=Classes.of(["a", "b"]))
    assert [record["keypoints"] for record in records] == [[1, 2, 0.5], [3, 4, 0.25]]
    assert records[1]["segmentation"]["size"] == [30, 40]
    masks = Masks.from_coco([record["segmentation"] for record in records], SIZE)
    assert masks.areas().tolist() == [200, 25]
    assert json.loads(json.dumps(records)) == records


def test_targets_carry_masks_and_keypoints_along() -> None:
    boxes = torch.tensor([[1.0, 2.0, 11.0, 22.0], [0.0, 0.0, 5.0, 5.0]])
    truth = Targets(boxes, torch.tensor([0, 1]), masks=Masks.of_boxes(boxes, SIZE), keypoints=torch.zeros(2, 4, 3))
    second = truth[1:].to("cpu")
    assert (len(second.masks), second.keypoints.shape) == (1, (1, 4, 3))


@pytest.mark.parametrize("fields", [{"masks": Masks.empty(SIZE)}, {"keypoints": torch.zeros(1, 4, 3)}])
def test_one_mask_and_one_set_of_keypoints_a_box(fields) -> None:
    with pytest.raises(AssertionError):
        Targets(torch.zeros(2, 4), torch.tensor([0, 1]), **fields)
    with pytest.raises(AssertionError):
        Detections(torch.zeros(2, 4), torch.zeros(2), torch.tensor([0, 1]), **fields)


def test_supervision_gets_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("supervision")
    fake.Detections = lambda **fields: fields
    monkeypatch.setitem(sys.modules, "supervision", fake)
    fields = _with_all().to_supervision(Classes.of(["a", "b"]))
    assert fields["xyxy"].tolist() == [[1, 2, 11, 22], [0, 0, 5, 5]]
    assert (fields["mask"].shape, fields["mask"].dtype) == ((2, 30, 40), bool)
    assert fields["class_id"].tolist() == [1, 0]
    assert fields["data"]["class_name"].tolist() == ["b", "a"]
    assert fields["data"]["keypoints"].shape == (2, 1, 3)
    bare = _found().to_supervision()
    assert (bare["mask"], bare["data"]) == (None, {})


def test_without_supervision_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match="pip install supervision"):
        _found().to_supervision()
