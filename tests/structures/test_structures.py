from __future__ import annotations

import pytest
import torch

from fpn.errors import ConfigError
from fpn.structures import Classes, Detections, LossTerms, Targets


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
