"""A detector without a second stage as a graph: the same arithmetic, open in batch, height and width alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fpn.detectors.one_stage import OneStageDetector
from fpn.errors import ConfigError
from fpn.export.operators import LOWEST, NEVER, best, nms_mask
from fpn.export.padded import PaddedDetections, pick
from fpn.export.uncut import features_for_graph
from fpn.heads.dense_selection import DenseMaps
from fpn.heads.dense_towers import TowerHead
from fpn.ops.boxes import clip
from fpn.structures import ImageBatch


class DenseGraph(nn.Module):
    """Network pixels (B, 3, H, W) and sizes (B, 2) -> `PaddedDetections`.

    Args:
        detector: not optimized.

    Raises:
        ConfigError: its head is not one of towers.
    """

    def __init__(self, detector: OneStageDetector) -> None:
        super().__init__()
        if not isinstance(detector.head, TowerHead):
            raise ConfigError(f"a {type(detector.head).__name__} can't be exported: it says nothing of its levels")
        self.features, self.head = features_for_graph(detector.features), detector.head

    def forward(self, pixels: Tensor, sizes: Tensor) -> PaddedDetections:
        """What is found in B images, network pixels."""
        images, head = ImageBatch(pixels, sizes), self.head
        maps = head.maps(head(self.features(pixels)))
        found = []
        for number, references in enumerate(head.references(maps, images)):
            scores, place, label = self._best_of(maps, number)
            deltas = pick(_flat(maps.deltas[number], 4), place).float()
            boxes = head.decode(deltas.flatten(0, 1), references[place.flatten()]).reshape(-1, place.shape[1], 4)
            found.append((boxes, scores, label))
        boxes, scores, labels = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        return self._select(boxes, scores, labels, sizes)

    def _best_of(self, maps: DenseMaps, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of a level (B, k) scores, places and classes of the best pairs; as `dense_selection.pick_best`."""
        config, scoring, classes = self.head.settings, self.head.scoring, self.head.num_classes
        batch, channels, height, width = maps.logits[number].shape
        anchors, cells = channels // classes, height * width
        values = maps.logits[number].float().reshape(batch, anchors, classes, cells)
        quality = maps.quality[number].float().flatten(2).sigmoid() if maps.quality else None  # (B, A, H*W)
        least = math.log(config.score_limit / (1 - config.score_limit)) if config.score_limit > 0 else -math.inf
        if scoring == "root" and quality is not None:
            values, least = (values.sigmoid() * quality[:, :, None]).sqrt(), config.score_limit
        values, index = best(values.masked_fill(values <= least, NEVER).flatten(1), config.before_nms)
        channel, there = index // cells, values > LOWEST
        cell = index - channel * cells  # ONNX has no remainder by a number that is open
        place = cell * anchors + channel // classes
        scores = values if scoring == "root" else values.sigmoid()
        if scoring == "product" and quality is not None:
            scores = scores * quality.transpose(1, 2).flatten(1).gather(1, place)
        return scores.masked_fill(~there, NEVER), place, channel % classes

    def _select(self, boxes: Tensor, scores: Tensor, labels: Tensor, sizes: Tensor) -> PaddedDetections:
        """NMS within each class, and the limit; as `dense_selection._suppress`."""
        config = self.head.settings
        if config.clipped == "before_nms":
            boxes, scores = self._clipped(boxes, scores, sizes)
        classes = torch.arange(self.head.num_classes, device=labels.device)[None, :, None]
        each = scores[:, None].masked_fill(labels[:, None] != classes, NEVER)  # (B, K, M)
        kept = nms_mask(boxes, each, config.nms, LOWEST).any(dim=1)
        scores, place = best(scores.masked_fill(~kept, NEVER), config.limit)
        boxes, labels = pick(boxes, place), labels.gather(1, place)
        if config.clipped == "last":
            boxes, scores = self._clipped(boxes, scores, sizes)
            scores, place = best(scores, config.limit)
            boxes, labels = pick(boxes, place), labels.gather(1, place)
        valid = scores > LOWEST
        return PaddedDetections(boxes * valid[..., None], scores.where(valid, 0.0), labels.where(valid, -1))

    def _clipped(self, boxes: Tensor, scores: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        boxes = clip(boxes, sizes[:, None, 0], sizes[:, None, 1])
        if self.head.settings.drop_empty:
            scores = scores.where((boxes[..., 2:] > boxes[..., :2]).all(dim=-1), NEVER)
        return boxes, scores


def _flat(maps: Tensor, values: int) -> Tensor:
    """(B, A*values, H, W) -> (B, H*W*A, values), in the order y, x, anchor."""
    batch, channels, height, width = maps.shape
    return maps.reshape(batch, channels // values, values, height, width).permute(0, 3, 4, 1, 2).flatten(1, 3)
