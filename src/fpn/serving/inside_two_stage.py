"""The inside of detectors with proposals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpn.detectors.two_stage import TwoStageDetector
from fpn.drawing import cut_score
from fpn.heads.cascade import box_heads
from fpn.heads.cascade_masks import MaskStages
from fpn.heads.roi_pooler import RoIPooler
from fpn.heads.rpn import RPN
from fpn.preprocessing.frame import Frame
from fpn.serving.equation_sentences import readings_of
from fpn.serving.inside_figures import (
    SHOWN,
    Explained,
    Inside,
    LevelInside,
    RoIReading,
    Selection,
    anchor_places,
    corners,
    describe_level,
    ranked,
    rounded_scores,
    shown_boxes,
)
from fpn.shapes import Size
from fpn.structures import ImageBatch
from fpn.studies.diagnosis.two_stage_view import BatchView, ImageView


def look_into_two_stage(detector: TwoStageDetector, images: ImageBatch, frame: Frame) -> Inside:
    """What it thought of a batch of one image, which lies in `frame`."""
    batch = BatchView(detector, images, *detector.look(images.pixels))
    chosen = _Chosen.of(batch)
    return Inside(
        kind=detector.recipe.kind,
        image=frame.original,
        network=frame.network,
        levels=tuple(_levels(batch, chosen, frame)),
        count=len(batch.views[0].detections),
        detections=tuple(_explained(batch.views[0], chosen, frame)),
        selection=_selection(chosen, frame),
    )


@dataclass(frozen=True)
class _Chosen:
    """What the RPN's NMS chose from, with levels also where it looks at all of them together.

    Attributes:
        rpn: whose.
        maps: size of its map of each level.
        grids: the anchors of each level.
        boxes, scores: (k, 4) and (k,) of the candidates, network pixels and 0..1.
        levels: (k,) place of each among the RPN's levels.
        anchors: (k,) number of each one's anchor within its level.
        kept: those that become proposals, best first.
    """

    rpn: RPN
    maps: list[Size]
    grids: list[Tensor]
    boxes: Tensor
    scores: Tensor
    levels: Tensor
    anchors: Tensor
    kept: Tensor

    @classmethod
    def of(cls, batch: BatchView) -> _Chosen:
        rpn, found = batch.detector.rpn, batch.candidates
        maps = [Size(*each.shape[2:]) for each in batch.raw.objectness]
        grids = rpn.anchors.grids(rpn.levels, maps, batch.images.padded_size, batch.images.pixels.device)
        ends = torch.tensor([len(grid) for grid in grids], device=found.boxes.device).cumsum(0)
        levels = torch.bucketize(found.anchors[0], ends, right=True)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        kept = rpn.survivors(found.boxes[0], found.scores[0], found.parts, rpn.config.after_nms[1])
        anchors = found.anchors[0] - starts[levels]
        return cls(rpn, maps, grids, found.boxes[0], found.scores[0].sigmoid(), levels, anchors, kept)

    def origin(self, roi: int) -> str:
        """What RoI number `roi` of the first box head was made of, in a sentence."""
        if roi >= len(self.kept):
            return "It was made of padding: this dialect fills missing proposals with empty boxes."
        number = int(self.kept[roi])
        place, anchor = int(self.levels[number]), int(self.anchors[number])
        x1, y1, x2, y2 = self.grids[place][anchor].tolist()
        row, column = divmod(anchor // self.rpn.anchors.per_cell()[place], self.maps[place].width)
        score, where = cut_score(float(self.scores[number])), f"{self.rpn.levels[place].name}, row {row}"
        return (
            f"Its proposal is number {roi + 1} of {len(self.kept)}, objectness {score}, from the anchor of "
            f"{x2 - x1:.0f} x {y2 - y1:.0f} network pixels of {where}, column {column}."
        )


def _levels(batch: BatchView, chosen: _Chosen, frame: Frame) -> Iterator[LevelInside]:
    detector, size = batch.detector, Size(*batch.images.sizes[0].tolist())
    rpn_names = [level.name for level in chosen.rpn.levels]
    plus = 1.0 if chosen.rpn.anchors.inclusive_corners else 0.0
    for level in detector.features.levels:
        places, read_by = None, [name.lower() for name, pooler in _poolers(detector) if level in pooler.levels]
        if level.name in rpn_names:
            number = rpn_names.index(level.name)
            rows, columns = chosen.maps[number]
            per_cell = chosen.rpn.anchors.per_cell()[number]
            places = anchor_places(chosen.grids[number], per_cell, columns, rows, frame, plus=plus)
            read_by = ["RPN", *read_by]
        found = batch.features[level.name][0]
        yield describe_level(level, found, size, frame, read_by=tuple(read_by), places=places)


def _poolers(detector: TwoStageDetector) -> list[tuple[str, RoIPooler]]:
    """What each head is called, and what it reads RoIs with."""
    heads = detector.roi_heads
    boxes = box_heads(heads.box)
    names = ["Box head"] if len(boxes) == 1 else [f"Box head, stage {number + 1}" for number in range(len(boxes))]
    found = [(name, head.pooler) for name, head in zip(names, boxes, strict=True)]
    if heads.mask is not None:
        mask = heads.mask.heads[0] if isinstance(heads.mask, MaskStages) else heads.mask
        found.append(("Mask head", mask.pooler))
    if heads.keypoint is not None:
        found.append(("Keypoint head", heads.keypoint.pooler))
    return found


def _explained(view: ImageView, chosen: _Chosen, frame: Frame) -> Iterator[Explained]:
    found, rows = view.detections[:SHOWN], view.candidates.rois[view.kept[:SHOWN]]
    padded, poolers = view.batch.images.padded_size, _poolers(view.batch.detector)
    whole = view.batch.detector.preprocessor.config.whole_pixels
    rois: Sequence[Tensor] = [*(stage[rows] for stage in view.earlier), view.rois[rows]]
    read = [*rois, *(found.boxes for _ in poolers[len(rois) :])]  # masks and keypoints are read from detections
    readings: list[list[RoIReading]] = [
        readings_of(name, pooler, boxes, padded) for (name, pooler), boxes in zip(poolers, read, strict=True)
    ]
    last, origins = readings[len(rois) - 1], corners(rois[0], frame)
    boxes = shown_boxes(found.boxes, frame, whole_pixels=whole)
    scores, labels = rounded_scores(found.scores), found.labels.tolist()
    for number, row in enumerate(rows.tolist()):
        own = tuple(each[number] for each in readings)
        why = (chosen.origin(row), *(each.sentence for each in own))
        level = last[number].level
        yield Explained(boxes[number], scores[number], labels[number], level, origins[number], own, why)


def _selection(chosen: _Chosen, frame: Frame) -> Selection:
    config, count = chosen.rpn.config, len(chosen.grids)
    stays = torch.zeros(len(chosen.boxes), dtype=torch.bool, device=chosen.boxes.device)
    stays[chosen.kept] = True
    scope = "within each level" if config.scope == "level" else "over all levels together"
    best = [each[chosen.kept] for each in (chosen.boxes, chosen.scores, chosen.levels)]
    return Selection(
        what="proposals",
        rule=f"NMS {scope} at IoU {config.nms:g}; at most {config.after_nms[1]} remain",
        levels=tuple(level.name for level in chosen.rpn.levels),
        places=tuple(len(grid) for grid in chosen.grids),
        before=ranked(frame, chosen.boxes, chosen.scores, chosen.levels, count=count, kept=stays),
        after=ranked(frame, *best, count=count),
    )
