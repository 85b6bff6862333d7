from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pycocotools.coco import COCO
from rich.console import Console
from torch import Tensor

from fpn.data import open_dataset
from fpn.data.dataset import Dataset
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors.prediction import TaskName
from fpn.errors import ConfigError, DataError, ImageError, OutputError
from fpn.evaluation import TASKS, Evaluation, choose_tasks, evaluate
from fpn.evaluation.known_truth import ClassWarning
from fpn.image_io import ImageLike
from fpn.shapes import Size
from fpn.structures import Detections, ImageBatch, Masks

from .seer import SCENES, Seer, detections, greys, seer


def printed(evaluation: Evaluation, width: int = 80) -> list[str]:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(evaluation.table())
    return console.export_text().splitlines()


def test_finding_everything_scores_one_whatever_size_the_network_saw(tmp_path: Path) -> None:
    measured = evaluate(seer(), greys(tmp_path), workers=0, batch_size=2)
    assert measured.ap == pytest.approx(1.0)
    assert (measured.images, measured.objects, measured.ignored) == (4, 4, 0)


def test_records_carry_original_pixels_and_the_ids_of_the_file(tmp_path: Path) -> None:
    records = evaluate(seer(), greys(tmp_path), workers=0).detections
    assert [(each["image_id"], each["category_id"]) for each in records] == [(140, 17), (140, 2), (220, 2), (260, 4)]
    assert records[1]["bbox"] == pytest.approx([30, 2, 28, 26], abs=1e-4)


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    # Another order, and a class that the dataset does not label: whatever is found of it does not count.
    names = ("gear", "washer", "bolt", "nut")
    known = {grey: detections(names, objects) for grey, (_, objects) in SCENES.items()}
    known[80] = detections(names, [("gear", [0, 0, 40, 80])], score=0.99)
    measured = evaluate(Seer(names, known), greys(tmp_path), workers=0)
    assert measured.ap == pytest.approx(1.0)
    assert {each["category_id"] for each in measured.detections} == {2, 4, 17}


def test_objects_of_a_class_that_the_detector_does_not_know_are_left_out_and_named(tmp_path: Path) -> None:
    names = ("bolt", "nut", "Washer")
    known = {grey: detections(("bolt", "nut", "washer"), objects) for grey, (_, objects) in SCENES.items()}
    said = r"does not know 'washer' \(1 object\); only the others are measured\. 'washer': Did you mean 'Washer'\?"
    with pytest.warns(ClassWarning, match=said):
        measured = evaluate(Seer(names, known), greys(tmp_path), workers=0)
    # What it calls a Washer does not count against it.
    assert measured.ap == pytest.approx(1.0)
    assert (measured.objects, measured.left_out) == (3, {"washer": 1})
    assert [each.name for each in measured.per_class] == ["bolt", "nut"]
    assert "not measured, as the model does not know it: washer (1 object)" in "\n".join(printed(measured))
    assert measured.to_dict()["left_out"] == {"washer": 1}


def test_a_class_without_objects_that_the_detector_does_not_know_changes_nothing(tmp_path: Path) -> None:
    greys(tmp_path)
    path = tmp_path / "instances.json"
    data = json.loads(path.read_text())
    data["categories"].append({"id": 30, "name": "gear"})
    path.write_text(json.dumps(data))
    measured = evaluate(seer(), open_dataset(tmp_path), workers=0)  # a warning would be an error here
    assert (measured.ap, measured.left_out) == (pytest.approx(1.0), {"gear": 0})
    assert [each.name for each in measured.per_class] == ["bolt", "washer", "nut"]


def test_a_detector_that_knows_no_class_of_the_dataset_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of its classes.*'washer': Did you mean 'washers'\?"):
        evaluate(Seer(("bolts", "nots", "washers"), {}), greys(tmp_path))


def test_each_image_is_seen_once_and_workers_change_nothing(tmp_path: Path) -> None:
    dataset, done = greys(tmp_path), []
    alone = evaluate(seer(), dataset, workers=0, batch_size=1, progress=done.append)
    helped = evaluate(seer(), dataset, workers=2, batch_size=1)
    assert done == [1, 2, 3, 4]
    assert helped.detections == alone.detections


def test_a_detector_in_training_is_measured_in_eval_and_goes_on_training(tmp_path: Path) -> None:
    detector = seer().train()
    state = torch.random.get_rng_state()
    evaluate(detector, greys(tmp_path), workers=0)
    assert detector.saw[0] == (False, True, torch.float32)
    assert detector.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bf16_is_used_when_asked_for(tmp_path: Path) -> None:
    detector = seer()
    evaluate(detector, greys(tmp_path), workers=0, precision="bf16")
    assert detector.saw[0][2] == torch.bfloat16


def test_proposals_are_measured_without_classes(tmp_path: Path) -> None:
    classes = ("bolt", "nut", "washer")
    half = {grey: detections(classes, objects[:1]) for grey, (_, objects) in SCENES.items()}
    measured = evaluate(Seer(classes, half), greys(tmp_path), workers=0, tasks=["boxes", "proposals"])
    # Three of the four objects, one image's second is missing; sizes 20 x 20 (small) and 40 x 50 (medium).
    assert measured.proposals is not None
    assert measured.proposals.ar1000 == pytest.approx(0.75)
    assert measured.proposals.ar100_medium == pytest.approx(1.0)
    assert measured.proposals.ar100_large == -1.0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_image_that_cannot_be_read_is_named(tmp_path: Path, workers: int) -> None:
    dataset = greys(tmp_path)
    (tmp_path / "images" / "120.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"120\.png"):
        evaluate(seer(), dataset, workers=workers, batch_size=1)


def test_a_dataset_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        evaluate(seer(), SceneDataset(0))


def test_the_table_fits_80_columns_and_shows_a_dash_for_what_was_not_measured(tmp_path: Path) -> None:
    lines = printed(evaluate(seer(), greys(tmp_path), workers=0, tasks=["boxes", "proposals"]))
    assert max(map(len, lines)) <= 80
    bolt = next(line for line in lines if "bolt" in line)
    # 28 x 26 and 40 x 50 pixels: one small, one medium, none large.
    assert bolt.replace("│", " ").split() == ["bolt", "2", "1.000", "1.000", "1.000", "1.000", "1.000", "-"]
    assert any("proposals @1000" in line for line in lines)


def test_the_json_says_null_for_what_was_not_measured(tmp_path: Path) -> None:
    evaluate(seer(), greys(tmp_path / "set"), workers=0).save(tmp_path / "deep" / "metrics.json")
    saved = json.loads((tmp_path / "deep" / "metrics.json").read_text())
    assert saved["ap50"] == pytest.approx(1.0)
    assert saved["ap_large"] is None
    assert [each["name"] for each in saved["per_class"]] == ["bolt", "washer", "nut"]


def test_the_table_of_figures_has_a_row_for_all_and_one_for_each_class(tmp_path: Path) -> None:
    measured = evaluate(seer(), greys(tmp_path / "set"), workers=0, tasks=["boxes", "proposals"])
    measured.save(tmp_path / "metrics.json")
    with (tmp_path / "metrics.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["task"], row["class"]) for row in rows] == [
        ("boxes", ""), ("boxes", "bolt"), ("boxes", "washer"), ("boxes", "nut"), ("proposals", "")
    ]  # fmt: skip
    assert float(rows[1]["ap"]) == pytest.approx(1.0)
    assert (rows[1]["objects"], rows[1]["ap_large"]) == ("2", "")
    assert float(rows[4]["ar1000"]) == measured.metrics["proposal_ar1000"]


def test_saved_detections_name_their_files_and_load_in_pycocotools_with_the_datasets_ids(tmp_path: Path) -> None:
    dataset = greys(tmp_path / "set")
    measured = evaluate(seer(), dataset, workers=0)
    measured.save_detections(tmp_path / "found.json")
    (tmp_path / "truth.json").write_text(json.dumps(dataset.coco()))
    truth = COCO(str(tmp_path / "truth.json"))
    loaded = truth.loadRes(str(tmp_path / "found.json"))
    assert len(loaded.getAnnIds()) == len(measured.detections) > 0
    names = {image["id"]: image["file_name"] for image in dataset.coco()["images"]}
    assert all(each["file_name"] == names[each["image_id"]] for each in loaded.dataset["annotations"])
    with (tmp_path / "found.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file_name"] for row in rows] == [names[each["image_id"]] for each in measured.detections]
    known = dict(zip(map(str, dataset.classes.ids), dataset.classes.names, strict=True))
    assert all(row["class"] == known[row["category_id"]] for row in rows)


def test_saving_where_nothing_can_be_written_is_one_clear_error(tmp_path: Path) -> None:
    measured = evaluate(seer(), greys(tmp_path / "set"), workers=0)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="Choose another --output"):
        measured.save(tmp_path / "file" / "metrics.json")
    assert (tmp_path / "file").read_text() == "mine"


def test_tasks_are_those_that_the_detector_gives_and_the_dataset_labels(tmp_path: Path) -> None:
    dataset = greys(tmp_path)
    assert choose_tasks(seer(), dataset) == ("boxes",)
    with pytest.raises(ConfigError, match="task 'masks': this detector gives boxes, proposals only"):
        evaluate(seer(), dataset, tasks=["masks"])


def test_metrics_of_all_tasks_have_names_of_their_own(tmp_path: Path) -> None:
    measured = evaluate(seer(), greys(tmp_path), workers=0, tasks=["proposals"])
    assert set(measured.metrics) == {*TASKS["boxes"].metrics, *TASKS["proposals"].metrics}
    assert measured.metrics["ap"] == measured.ap
    assert measured.metrics["proposal_ar1000"] == pytest.approx(1.0)


def test_what_is_no_module_is_measured_all_the_same(tmp_path: Path) -> None:
    inside = seer()

    class Exported:
        """As an exported model comes: a predictor, and no more."""

        classes, preprocessor, bucket = inside.classes, inside.preprocessor, inside.bucket
        tasks, device, max_detections, skeleton = ("boxes",), torch.device("cpu"), None, None
        class_free = False

        def detect(self, images: ImageBatch) -> list[Detections]:
            return inside.detect(images)

        def predict(self, images: Sequence[ImageLike], *, batch_size: int = 8) -> list[Detections]:
            return inside.predict(images, batch_size=batch_size)

    assert evaluate(Exported(), greys(tmp_path), workers=0).ap == pytest.approx(1.0)


class Outliner(Seer):
    """Finds each object's box, the whole of it as its mask, and four of its points."""

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        return ("boxes", "masks", "keypoints")

    def detect(self, images: ImageBatch) -> list[Detections]:
        sizes = [Size(*size) for size in images.sizes.tolist()]
        return [
            replace(found, masks=Masks.of_boxes(found.boxes, size), keypoints=corners(found.boxes))
            for found, size in zip(super().detect(images), sizes, strict=True)
        ]


def corners(boxes: Tensor) -> Tensor:
    """(N, 4, 3): x, y and 1 for each corner."""
    places = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    return torch.cat((places, torch.ones_like(places[..., :1])), dim=2)


def outlined(root: Path) -> Dataset:
    """The scenes, with the left half of each object as its mask, and its corners as its points."""
    greys(root)
    path = root / "instances.json"
    data = json.loads(path.read_text())
    for each in data["annotations"]:
        x, y, width, height = each["bbox"]
        each["segmentation"] = [[x, y, x + width / 2, y, x + width / 2, y + height, x, y + height]]
        each["keypoints"] = [x, y, 2, x + width, y, 2, x + width, y + height, 2, x, y + height, 2]
        each["num_keypoints"] = 4
    for category in data["categories"]:
        category["keypoints"] = ["one", "two", "three", "four"]
    path.write_text(json.dumps(data))
    return open_dataset(root)


def test_masks_and_keypoints_are_measured_where_found_and_labelled(tmp_path: Path) -> None:
    known = seer()
    outliner = Outliner(known.classes.names, known.known)
    assert choose_tasks(outliner, greys(tmp_path / "boxes")) == ("boxes",)
    measured = evaluate(outliner, outlined(tmp_path / "outlines"), workers=0)
    assert measured.ap == pytest.approx(1.0)
    # The mask found is twice as large as the object: an IoU of a half, or a little less where pixels are cut.
    assert measured.masks is not None
    assert measured.masks.ap75 == 0.0
    # COCO labels no points of small objects, and this set has one object that is not small, with four points right.
    assert measured.keypoints is not None
    assert measured.metrics["keypoint_ap"] == pytest.approx(1.0)
    assert measured.metrics["mask_ap"] == measured.masks.ap < 0.2
    lines = printed(measured)
    assert max(map(len, lines)) <= 80
    assert any("mask AP" in line for line in lines)
    assert any("keypoint AP" in line for line in lines)
    assert measured.to_dict()["masks"]["per_class"][0]["name"] == "bolt"
    assert measured.to_dict()["keypoints"]["ap_large"] is None


def test_masks_that_the_dataset_does_not_label_are_refused_before_any_work(tmp_path: Path) -> None:
    known = seer()
    outliner = Outliner(known.classes.names, known.known)
    with pytest.raises(ConfigError, match=r"task 'masks': .* has no annotation with 'segmentation'"):
        evaluate(outliner, greys(tmp_path), tasks=["masks"])
    assert outliner.saw == []


class Unnamed(Outliner):
    """Tells no classes apart."""

    @property
    def class_free(self) -> bool:
        return True

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        return ("boxes",)


def test_to_a_detector_that_tells_no_classes_apart_all_objects_are_one_class(tmp_path: Path) -> None:
    unnamed = {grey: [("object", box) for _, box in objects] for grey, (_, objects) in SCENES.items()}
    detector = Unnamed(["object"], {grey: detections(["object"], objects) for grey, objects in unnamed.items()})
    measured = evaluate(detector, greys(tmp_path), workers=0)
    assert measured.ap == pytest.approx(1.0)
    assert [(each.name, each.objects) for each in measured.per_class] == [("object", 4)]
    assert not measured.left_out
    assert {each["category_id"] for each in measured.detections} == {1}
