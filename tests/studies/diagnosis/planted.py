"""A Faster R-CNN that sees the truth: maps, scores and deltas are set by hand, so that single faults can be planted.

Maps have one channel a class, painted in the middle of an object on the level of equation 1; the head reads the middle
of a RoI. Anchors that overlap an object by half are sure of it (logit 4 and more, else -6) and lead to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fpn.detectors import PAPER, Dialect, Preprocessor, TwoStageDetector
from fpn.detectors.recipe import FasterRCNNRecipe
from fpn.features.extractor import Extractor
from fpn.heads.box import BoxHead, TwoLayerTrunk
from fpn.heads.cascade import CascadeConfig, CascadeHead
from fpn.heads.mask import MaskConfig, MaskHead
from fpn.heads.roi_heads import RoIHeads
from fpn.heads.roi_pooler import RoIPooler
from fpn.heads.rpn import RPN
from fpn.ops.boxes import pairwise_iou
from fpn.ops.roi_align.levels import choose_levels
from fpn.shapes import Size
from fpn.structures import Classes, ImageBatch, Level, Targets

NAMES = ("cat", "dog", "cow")
SIDE = 256
LEVELS = tuple(Level(f"p{number}", 4, 2**number, number) for number in (2, 3, 4, 5, 6))
SIZES = ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))
# Objects of 28 to 56 pixels are read from p3.
CANONICAL = 56.0
PIXELS = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "value_range": 255.0, "short_side": SIDE, "long_side": SIDE}
DIALECT = PAPER.changed(
    pixels=PIXELS,
    anchors={"sizes": SIZES},
    roi={"canonical_size": CANONICAL},
    rpn={"before_nms": (200, 200), "after_nms": (300, 300)},
)


class LevelsAlone(Extractor):
    """Levels without a network: `_say` draws the maps."""

    def __init__(self, levels: tuple[Level, ...]) -> None:
        nn.Module.__init__(self)
        self._levels = levels

    @property
    def levels(self) -> tuple[Level, ...]:
        return self._levels


@dataclass(frozen=True)
class Spoil:
    """What is wrong with what the network says; rows are objects.

    Attributes:
        unsure: objects whose anchors score less than background.
        astray: objects whose anchors lead three widths away.
        unseen: objects that are not painted.
    """

    unsure: tuple[int, ...] = ()
    astray: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()


def detector(
    truths: Sequence[Targets],
    spoil: Spoil = Spoil(),
    head: Callable[[BoxHead], None] | None = None,
    cascade: Callable[[Sequence[BoxHead]], None] | None = None,
    masks: bool = False,
    **sections: Any,
) -> TwoStageDetector:
    """Knows the truth of the batch that it will see; `sections` change the dialect, `head` the head's weights.

    With `cascade`, which changes their weights, it has three heads that are alike; with `masks`, a mask head.
    """
    dialect = DIALECT.changed(**sections)
    classes = Classes.of(NAMES)
    heads = [_head(dialect) for _ in range(1 if cascade is None else 3)]
    with torch.no_grad():
        if head is not None:
            head(heads[0])
        if cascade is not None:
            cascade(heads)
    box = heads[0] if cascade is None else CascadeHead(stages=heads, config=CascadeConfig())
    made = TwoStageDetector(
        features=LevelsAlone(LEVELS),
        rpn=RPN(levels=LEVELS, anchors=dialect.anchors, coder=dialect.coder, config=dialect.rpn),
        roi_heads=RoIHeads(box=box, mask=_mask_head(dialect) if masks else None),
        classes=classes,
        preprocessor=Preprocessor(dialect.pixels),
        recipe=FasterRCNNRecipe(classes=classes.names, category_ids=classes.ids, dialect=dialect),
    )
    made.compiled_dense = lambda pixels: _say(made, truths, spoil)
    return made.eval()


def _head(dialect: Dialect) -> BoxHead:
    box = BoxHead(
        pooler=RoIPooler(levels=LEVELS[:4], config=dialect.roi),
        trunk=TwoLayerTrunk(channels=4, pooled_size=7, width=4),
        num_classes=len(NAMES),
        coder=dialect.coder,
        config=dialect.box,
    )
    _read_the_middle(box)
    return box


def _mask_head(dialect: Dialect) -> MaskHead:
    pooler = RoIPooler(levels=LEVELS[:4], config=dialect.roi.changed(output_size=14))
    return MaskHead(pooler=pooler, num_classes=len(NAMES), config=MaskConfig(convolutions=1, channels=4))


def _read_the_middle(box: BoxHead) -> None:
    """Logits: 6 for a class that is painted there, else 0; background 3."""
    first, second = box.trunk[1], box.trunk[3]
    with torch.no_grad():
        first.weight.zero_()
        for channel in range(4):
            first.weight[channel, channel * 49 + 24] = 1.0
        second.weight.copy_(torch.eye(4))
        box.scores.weight.zero_()
        box.scores.weight[:3, :3] = 6 * torch.eye(3)
        box.scores.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 3.0]))
        box.deltas.weight.zero_()


def _say(made: TwoStageDetector, truths: Sequence[Targets], spoil: Spoil) -> tuple[Tensor, ...]:
    sizes = [Size(SIDE // level.stride, SIDE // level.stride) for level in LEVELS]
    grids = made.rpn.anchors.grids(LEVELS, sizes, Size(SIDE, SIDE), torch.device("cpu"))
    source = torch.Generator().manual_seed(0)
    said = [[_anchors(made, grid, truth, spoil, source) for truth in truths] for grid in grids]
    objectness = [
        torch.stack([logits.view(size.height, size.width, -1).permute(2, 0, 1) for logits, _ in level])
        for level, size in zip(said, sizes, strict=True)
    ]
    deltas = [
        torch.stack([moves.reshape(size.height, size.width, -1).permute(2, 0, 1) for _, moves in level])
        for level, size in zip(said, sizes, strict=True)
    ]
    maps = [torch.stack([_painted(level, truth, spoil) for truth in truths]) for level in LEVELS]
    return (*maps, *objectness, *deltas)


def _anchors(
    made: TwoStageDetector, grid: Tensor, truth: Targets, spoil: Spoil, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(n,) logits and (n, 4) deltas of one level and image."""
    iou, owner = pairwise_iou(grid, truth.boxes).max(dim=1)
    noise = torch.rand(len(grid), generator=source)
    logits = torch.where(iou >= 0.5, 4 + iou, -6.0) + 0.1 * noise
    logits[torch.isin(owner, torch.tensor(spoil.unsure)) & (iou >= 0.3)] -= 14
    deltas = made.rpn.coder.encode(truth.boxes[owner], grid) + 0.04 * (noise[:, None] - 0.5)
    deltas[torch.isin(owner, torch.tensor(spoil.astray)), 0] += 3
    return logits, torch.where((iou >= 0.3)[:, None], deltas, 0.0)


def _painted(level: Level, truth: Targets, spoil: Spoil) -> Tensor:
    cells = torch.zeros(4, SIDE // level.stride, SIDE // level.stride)
    chosen = choose_levels(truth.boxes, finest=2, coarsest=5, canonical_size=CANONICAL)
    for row, (box, label) in enumerate(zip(truth.boxes, truth.labels.tolist(), strict=True)):
        if int(chosen[row]) == level.number and row not in spoil.unseen:
            middle, fifth = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 5
            x1, y1 = ((middle - fifth) / level.stride).floor().int().tolist()
            x2, y2 = ((middle + fifth) / level.stride).ceil().int().tolist()
            cells[label, y1:y2, x1:x2] = 1.0
    return cells


def images(count: int) -> ImageBatch:
    sizes = torch.tensor([[SIDE, SIDE]] * count)
    return ImageBatch(torch.zeros(count, 3, SIDE, SIDE), sizes, scales=torch.ones(count, 2))


def scattered(count: int = 1, labels: int = 2) -> list[Targets]:
    """16 objects an image of 30 to 54 pixels a side, one in each field of 64."""
    source = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        corner = 64 * torch.cartesian_prod(torch.arange(4), torch.arange(4)) + 4.0
        sides = 30 + 24 * torch.rand(16, 2, generator=source)
        found.append(Targets(torch.cat([corner, corner + sides], dim=1), torch.arange(16) % labels))
    return found


def in_pairs(count: int = 1) -> list[Targets]:
    """Each of 8 objects an image has a second one of its class 18 pixels beside it: 40 wide, so that IoU is 0.38."""
    found = []
    for truth in scattered(count):
        first = truth.boxes[truth.boxes[:, 0].long() % 128 < 64]
        first[:, 2:] = first[:, :2] + 40
        first[:, 2:] += torch.arange(8)[:, None] / 4  # so that no two are equal
        second = first + torch.tensor([18.0, 0.0, 18.0, 0.0])
        labels = truth.labels[:8]
        found.append(replace(truth, boxes=torch.cat([first, second]), labels=torch.cat([labels, labels])))
    return [Targets(each.boxes, each.labels) for each in found]
