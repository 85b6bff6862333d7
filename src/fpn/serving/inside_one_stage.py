"""The inside of detectors whose every place gives detections at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fpn.detectors.one_stage import OneStageDetector
from fpn.drawing import cut_score
from fpn.heads.anchor_towers import AnchorTowerHead
from fpn.heads.dense_selection import DenseCandidates
from fpn.heads.dense_towers import TowerHead
from fpn.preprocessing.frame import Frame
from fpn.serving.inside_figures import (
    SHOWN,
    CellPlaces,
    CellShape,
    Explained,
    Inside,
    LevelInside,
    Selection,
    anchor_places,
    corners,
    describe_level,
    ranked,
    rounded_scores,
    shown_boxes,
    step_of,
)
from fpn.shapes import Size
from fpn.structures import Features, ImageBatch
from fpn.studies.diagnosis.one_stage_view import DenseView


def look_into_one_stage(detector: OneStageDetector, head: TowerHead, images: ImageBatch, frame: Frame) -> Inside:
    """What it thought of a batch of one image, which lies in `frame`; `head` is its own."""
    features: Features = detector.features(images.pixels)
    maps = head.maps(head(features))
    view = DenseView(head, maps, head.references(maps, images), images, 0)
    return Inside(
        kind=detector.recipe.kind,
        image=frame.original,
        network=frame.network,
        levels=tuple(_levels(detector, features, view, frame)),
        count=len(view.given.scores),
        detections=tuple(_explained(view, frame, detector.preprocessor.config.whole_pixels)),
        selection=_selection(view, frame),
    )


def _levels(detector: OneStageDetector, features: Features, view: DenseView, frame: Frame) -> Iterator[LevelInside]:
    size = Size(*view.images.sizes[0].tolist())
    read = [level.name for level in view.head.levels]
    for level in detector.features.levels:
        places = _places(view, read.index(level.name), frame) if level.name in read else None
        heads = ("head",) if level.name in read else ()
        yield describe_level(level, features[level.name][0], size, frame, read_by=heads, places=places)


def _places(view: DenseView, number: int, frame: Frame) -> CellPlaces:
    grid = view.references[number]
    rows, columns = view.maps.deltas[number].shape[2:]
    if grid.shape[1] == 4:
        plus = 1.0 if isinstance(view.head, AnchorTowerHead) and view.head.anchors.inclusive_corners else 0.0
        return anchor_places(grid, view.head.per_cell, columns, rows, frame, plus=plus)
    point = grid[:1, :2]
    right = float(grid[1, 0] - grid[0, 0]) if columns > 1 else 0.0
    down = float(grid[columns, 1] - grid[0, 1]) if rows > 1 else 0.0
    shape = CellShape(0.0, 1.0, corners(torch.cat([point, point], dim=1), frame)[0])
    return CellPlaces("point", step_of(right, down, frame), (shape,), _range(view, number))


def _range(view: DenseView, number: int) -> str:
    """Which objects a level without anchors learns. FCOS gives each 4 to 8 strides."""
    stride, last = view.head.levels[number].stride, len(view.head.levels) - 1
    low = 0 if number == 0 else 4 * stride
    end = "or more" if number == last else f"to {8 * stride}"
    return f"objects whose farthest side is {low} {end} network pixels away"


def _explained(view: DenseView, frame: Frame, whole_pixels: bool) -> Iterator[Explained]:
    given = DenseCandidates(*(each[:SHOWN] for each in view.given))
    boxes = shown_boxes(given.boxes, frame, whole_pixels=whole_pixels)
    scores, labels = rounded_scores(given.scores), given.labels.tolist()
    places = view.places[given.places]
    centred = places[:, :2].repeat(1, 2) if places.shape[1] == 3 else places
    origins = corners(centred, frame)
    for number, place in enumerate(given.places.tolist()):
        level = int(view.levels[place])
        name = view.head.levels[level].name
        why = (_made_by(view, level, place, given.boxes[number]), *_score(view, place, labels[number]))
        yield Explained(boxes[number], scores[number], labels[number], name, origins[number], (), why)


def _made_by(view: DenseView, level: int, place: int, box: Tensor) -> str:
    """Which anchor or point a detection was made by; no equation chooses it, the surest place of all levels does."""
    name, reference = view.head.levels[level].name, view.places[place].tolist()
    within = place - sum(len(grid) for grid in view.references[:level])
    row, column = divmod(within // view.head.per_cell, view.maps.deltas[level].shape[3])
    where = f"{name}, row {row}, column {column}"
    if len(reference) == 4:
        x1, y1, x2, y2 = reference
        sides = f"{x2 - x1:.0f} x {y2 - y1:.0f}"
        return f"Made by the anchor of {sides} network pixels of {where}: no equation chooses a level here, scores do."
    x, y = reference[:2]
    farthest = max(x - float(box[0]), y - float(box[1]), float(box[2]) - x, float(box[3]) - y)
    return (
        f"Made by the point of {where}: its farthest side is {farthest:.0f} network pixels away; {name} learns "
        f"{_range(view, level)}."
    )


def _score(view: DenseView, place: int, label: int) -> tuple[str, ...]:
    """What the score is made of, where it is made of more than the class's."""
    if view.head.scoring == "class":
        return ()
    own, score = float(view.class_scores[place, label]), float(view.scores[place, label])
    match view.head.scoring:
        case "root":
            return (
                f"Score: √(class {own:.2f} x centre-ness {score**2 / own if own else 0:.2f}) = {cut_score(score)}.",
            )
        case "product":
            return (f"Score: class {own:.2f} x centre-ness {score / own if own else 0:.2f} = {cut_score(score)}.",)


def _selection(view: DenseView, frame: Frame) -> Selection:
    found, given, config = view.candidates, view.given, view.head.settings
    count = len(view.references)
    pair = found.places * view.head.num_classes + found.labels
    stays = torch.isin(pair, given.places * view.head.num_classes + given.labels)
    before = {"labels": found.labels, "kept": stays}
    return Selection(
        what="candidates",
        rule=f"NMS within each class at IoU {config.nms:g}, of scores above {config.score_limit:g}; at most "
        f"{config.limit} remain",
        levels=tuple(level.name for level in view.head.levels),
        places=tuple(len(grid) for grid in view.references),
        before=ranked(frame, found.boxes, found.scores, view.levels[found.places], count=count, **before),
        after=ranked(frame, given.boxes, given.scores, view.levels[given.places], count=count, labels=given.labels),
    )
