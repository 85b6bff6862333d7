"""A detector of two stages as a graph: the same arithmetic, open in batch, height and width alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fpn.detectors.two_stage import TwoStageDetector
from fpn.errors import ConfigError
from fpn.export.operators import LOWEST, NEVER, best, keypoint_peaks, nms_mask, soft_nms_picks
from fpn.export.padded import (
    Compact,
    Frames,
    PaddedDetections,
    by_place,
    check_pooler,
    clip_to_sizes,
    compact,
    pick,
    pool,
    spread,
)
from fpn.export.plain_norms import with_plain_norms
from fpn.export.uncut import features_for_graph
from fpn.heads.box import BoxHead
from fpn.heads.cascade import box_heads
from fpn.heads.cascade_masks import MaskStages
from fpn.shapes import Size
from fpn.structures import Features


class TwoStageGraph(nn.Module):
    """Network pixels (B, 3, H, W) and sizes (B, 2) -> `PaddedDetections`.

    Args:
        detector: not optimized.

    Raises:
        ConfigError: it has a setting that can't be exported.
    """

    def __init__(self, detector: TwoStageDetector) -> None:
        super().__init__()
        self.features = features_for_graph(detector.features)
        self.rpn, self.roi_heads = detector.rpn, with_plain_norms(detector.roi_heads)
        multiple = detector.preprocessor.size_multiple
        for head in box_heads(detector.roi_heads.box):
            check_pooler(head.pooler, multiple)
        for later in detector.roi_heads.completing:
            check_pooler(later.heads[0].pooler if isinstance(later, MaskStages) else later.pooler, multiple)
        config = self.last.config
        if self.last.coder.legacy_plus_one and config.nms_frame == "original":
            raise ConfigError("box.nms_frame 'original' with coder.legacy_plus_one can't be exported")

    @property
    def last(self) -> BoxHead:
        """The box head whose boxes count."""
        return box_heads(self.roi_heads.box)[-1]

    def forward(self, pixels: Tensor, sizes: Tensor) -> PaddedDetections:
        """What is found in B images, network pixels."""
        frames = Frames(sizes, Size(pixels.shape[2], pixels.shape[3]))
        features: Features = self.features(pixels)
        proposals, valid = self.propose(features, frames)
        chosen = by_place(compact(proposals, valid), frames.padded)
        scores, boxes, chosen = self.judge(features, chosen, frames)
        found = self.select(spread(scores, chosen, valid, -1.0), spread(boxes, chosen, valid))
        return self.complete(features, found)

    def propose(self, features: Features, frames: Frames) -> tuple[Tensor, Tensor]:
        """(B, P, 4) proposals and which of them (B, P) there are."""
        rpn, config = self.rpn, self.rpn.config
        found = [
            self._of_part(scores, deltas, anchors, frames)
            for scores, deltas, anchors in zip(*rpn.parts(rpn(features), frames.padded), strict=True)
        ]
        boxes, scores = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        scores, place = best(scores, config.after_nms[1])
        valid = scores > LOWEST
        boxes = pick(boxes, place) * valid[..., None]
        return boxes, torch.ones_like(valid) if config.padded else valid

    def _of_part(self, scores: Tensor, deltas: Tensor, anchors: Tensor, frames: Frames) -> tuple[Tensor, Tensor]:
        """(B, k, 4) boxes and (B, k) logits of a level's (B, n) anchors; `NEVER` of those that NMS drops."""
        coder, config = self.rpn.coder, self.rpn.config
        scores, place = best(scores, config.before_nms[1])
        boxes = clip_to_sizes(coder, coder.decode(pick(deltas, place).float(), anchors[place]), frames.sizes[:, None])
        fits = self.rpn.fits(boxes, scores)
        scores = scores if fits is None else scores.masked_fill(~fits, NEVER)
        kept = nms_mask(_overlapping(boxes, coder.legacy_plus_one), scores[:, None], config.nms, LOWEST)[:, 0]
        return boxes, scores.masked_fill(~kept, NEVER)

    def judge(self, features: Features, chosen: Compact, frames: Frames) -> tuple[Tensor, Tensor, Compact]:
        """Of R RoIs (R, K) scores, -1 where a class does not compete, (R, K or 1, 4) boxes, and which RoIs these are.

        They come back in another order, level after level.
        """
        heads = box_heads(self.roi_heads.box)
        told: list[Tensor] = []
        for head in heads:
            pooled, chosen, order = pool(head.pooler, features, chosen)
            sizes = frames.sizes[chosen.image]
            logits, deltas = head.judge(pooled)
            told = [*(told if order is None else (each[order] for each in told)), logits.float()]
            moved = deltas.float().reshape(-1, deltas.shape[1] // 4, 4)
            if head is not heads[-1]:
                boxes = head.coder.decode(_of_best(moved, logits, head), chosen.boxes)
                chosen = chosen._replace(boxes=clip_to_sizes(head.coder, boxes, sizes))
        averaged = told[0] if isinstance(self.roi_heads.box, BoxHead) else self.roi_heads.box.averaged(told)
        scores = self.last.class_scores(averaged.softmax(dim=1))
        rois = chosen.boxes[:, None].expand(-1, moved.shape[1], -1)
        boxes = clip_to_sizes(self.last.coder, self.last.coder.decode(moved, rois), sizes[:, None])
        least = self.last.config.min_size
        if least is not None:
            scores = scores.masked_fill((boxes[..., 2:] - boxes[..., :2]).amin(dim=-1) <= least, -1.0)
        return scores, boxes, chosen

    def select(self, scores: Tensor, boxes: Tensor) -> PaddedDetections:
        """From (B, P, K) scores and (B, P, K or 1, 4) boxes to detections."""
        config, classes = self.last.config, self.last.num_classes
        scores = scores.masked_fill(scores <= config.score_limit, NEVER)
        plus_one = self.last.coder.legacy_plus_one
        every = boxes.expand(-1, -1, classes, -1).flatten(1, 2)  # (B, P, K, 4) -> (B, P * K, 4)
        if config.suppression == "hard":
            groups = _overlapping(boxes, plus_one).permute(0, 2, 1, 3).flatten(0, 1)  # (B * (K or 1), P, 4)
            columns = scores.permute(0, 2, 1).reshape(groups.shape[0], -1, scores.shape[1])
            kept = nms_mask(groups, columns, config.nms, LOWEST)
            kept = kept.reshape(-1, classes, scores.shape[1]).permute(0, 2, 1)
            values, place = best(scores.masked_fill(~kept, NEVER).flatten(1), config.limit)
        else:
            flat = scores.flatten(1)
            place, values = soft_nms_picks(
                every,
                flat.clamp(min=-1.0),
                (torch.arange(classes, device=scores.device) + torch.zeros_like(scores)).flatten(1),
                config.suppression == "gaussian",
                config.nms,
                config.nms_sigma,
                config.nms_lowest,
                config.limit,
                plus_one,
            )
        valid = values >= 0
        return PaddedDetections(
            pick(every, place) * valid[..., None],
            values.clamp(min=0.0),
            torch.where(valid, place % classes, -1),
        )

    def complete(self, features: Features, found: PaddedDetections) -> PaddedDetections:
        """The same with masks and keypoints: only detections that there are are looked at."""
        heads = self.roi_heads
        if heads.mask is not None:
            stages = heads.mask.heads if isinstance(heads.mask, MaskStages) else [heads.mask]
            pooled, chosen, _ = pool(stages[0].pooler, features, compact(found.boxes, found.valid))
            labels = found.labels.flatten()[chosen.place]
            each = [head.judge(pooled, labels).float().sigmoid() for head in stages]
            found = found._replace(masks=spread(torch.stack(each).mean(dim=0), chosen, found.valid))
        if heads.keypoint is not None:
            head = heads.keypoint
            pooled, chosen, _ = pool(head.pooler, features, compact(found.boxes, found.valid))
            maps = head.judge(pooled)
            points = keypoint_peaks(maps, chosen.boxes, head.config.score == "probability")
            found = found._replace(keypoints=spread(points, chosen, found.valid))
        return found


def _of_best(moved: Tensor, logits: Tensor, head: BoxHead) -> Tensor:
    """(R, K or 1, 4) -> (R, 4), the deltas of each RoI's best class."""
    if head.config.class_agnostic:
        return moved[:, 0]
    label = logits[:, : head.num_classes].argmax(dim=1)
    return moved.gather(1, label[:, None, None].expand(-1, 1, 4)).squeeze(1)


def _overlapping(boxes: Tensor, plus_one: bool) -> Tensor:
    """Boxes as their overlap counts."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] + 1], dim=-1) if plus_one else boxes
