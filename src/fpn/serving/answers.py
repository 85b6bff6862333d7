"""What was found, as JSON of our own or of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fpn.serving.problems import RequestError
from fpn.serving.service import Answer
from fpn.structures import Classes, Detections


def json_answer(answers: Sequence[Answer], model: str) -> dict[str, Any]:
    """Images with their detections, best first: boxes are x1, y1, x2, y2 in pixels of the upright image."""
    return {"model": model, "images": [_image(each) for each in answers]}


def _image(answer: Answer) -> dict[str, Any]:
    if isinstance(answer.found, RequestError):
        return {"name": answer.name, **answer.found.to_json()}
    assert answer.size is not None, "an image that was read has a size"
    image: dict[str, Any] = {"name": answer.name, "width": answer.size.width, "height": answer.size.height}
    if answer.warnings:
        image["warnings"] = list(answer.warnings)
    return {**image, "detections": _detections(answer.found, answer.loaded.predictor.classes)}


def _detections(found: Detections, classes: Classes) -> list[dict[str, Any]]:
    columns = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    listed: list[dict[str, Any]] = [
        {"label": classes[label], "category_id": classes.ids[label], "score": score, "box": box}
        for box, score, label in columns
    ]
    if found.masks is not None:
        for each, mask in zip(listed, found.masks.to_coco(polygons=False), strict=True):
            each["mask"] = mask
    if found.keypoints is not None:
        for each, points in zip(listed, found.keypoints.tolist(), strict=True):
            each["keypoints"] = points
    return listed


def coco_answer(answers: Sequence[Answer]) -> dict[str, Any]:
    """COCO's lists; images are numbered from 1 on, and categories have their ids of the training data."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, each in enumerate(answers, start=1):
        image: dict[str, Any] = {"id": number, "file_name": each.name}
        if isinstance(each.found, RequestError):
            image |= each.found.to_json()
        else:
            assert each.size is not None, "an image that was read has a size"
            image |= {"width": each.size.width, "height": each.size.height}
            annotations += each.found.to_coco(image_id=number, classes=each.loaded.predictor.classes)
        images.append(image)
    for number, record in enumerate(annotations, start=1):
        record["id"] = number
    classes = answers[0].loaded.predictor.classes
    categories = [{"id": number, "name": name} for name, number in zip(classes.names, classes.ids, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}
