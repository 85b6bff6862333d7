"""What was found in the tiles of an image, as what was found in the image: each object once, and whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fpn.ops.tiles import Tile, cut_sides, tile_pairs
from fpn.shapes import Size
from fpn.structures import Detections, Masks

# Two boxes of different tiles are of one object at an IoU above this.
SAME_IOU = 0.5
# A box that a seam cut is a piece of a whole one which covers this part of it.
PIECE_COVERED = 0.7
# Two pieces are of one object if of what they show in both tiles this IoU agrees.
JOINED_IOU = 0.5
# How near to a seam a box's side has to be to have been cut there: pixels, and part of the tile's side.
NEAR_PIXELS, NEAR_PART = 2.0, 0.015
# Objects up to this part of a tile's side are seen better by tiles than in the whole image.
BETTER_IN_TILES = 0.5


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One pair of `TilePairs`, seen from one of its boxes.

    Attributes:
        number: of the other box.
        iou: of both.
        covered: which part of this one's box lies in the other, 0 to 1.
        shared_iou: of what both show in both tiles.
    """

    number: int
    iou: float
    covered: float
    shared_iou: float


def merge_tiles(found: Sequence[tuple[Tile, Detections]], size: Size, *, vote: bool = False) -> Detections:
    """One image's detections from those of its tiles, best first.

    Of boxes of one class in different tiles that overlap, those not cut by a seam come before those that are, and
    better ones before worse: a box goes if one before it is the same (IoU above 0.5), or if it was cut and one that was
    not has 0.7 of it. Pieces of an object that no tile shows whole are joined where they agree in what two tiles share.
    Boxes of one tile never drop each other: its own NMS has spoken. Where the whole image is looked at, too, what is
    small there counts as cut: tiles see it better.

    Args:
        found: the tiles, each with what was found in it, in its own pixels. One of them may be the whole image.
        size: of the image.
        vote: a kept box's place is the mean of itself and of the uncut ones that it drops, weighted by their scores.
    """
    together = _in_the_image(found, size)
    tiles = [tile for tile, _ in found]
    counts = torch.tensor([len(each) for _, each in found])
    cut = _which_cut(together.boxes, tiles, counts.tolist(), size)
    neighbours = _neighbours(together, tiles, counts)
    scores = together.scores.tolist()
    kept, dropped_by = _choose(scores, cut, neighbours)
    merged = replace(together, boxes=_voted(together, dropped_by, cut)) if vote else together
    groups = [sorted(each, key=lambda piece: -scores[piece]) for each in _pieces_of_one(kept, cut, neighbours)]
    merged = _joined(merged, groups)
    whole = merged[torch.tensor([group[0] for group in groups], dtype=torch.int64)]
    return whole[whole.scores.argsort(descending=True, stable=True)]


def _in_the_image(found: Sequence[tuple[Tile, Detections]], size: Size) -> Detections:
    parts = [_moved(each, tile, size) for tile, each in found]
    first = parts[0]
    return Detections(
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.scores for part in parts]),
        torch.cat([part.labels for part in parts]),
        None if first.masks is None else Masks.concatenate([part.masks for part in parts if part.masks is not None]),
        _all_of(part.keypoints for part in parts),
        _all_of(part.levels for part in parts),
        _all_of(part.origins for part in parts),
    )


def _all_of(values: Iterable[Tensor | None]) -> Tensor | None:
    """All one after the other; None where a part has none."""
    given = [*values]
    there = [each for each in given if each is not None]
    return torch.cat(there) if len(there) == len(given) else None


def _moved(found: Detections, tile: Tile, size: Size) -> Detections:
    """Detections in a tile's pixels in those of the image."""
    shift = found.boxes.new_tensor([tile.left, tile.top])
    masks = None if found.masks is None else found.masks.shifted(top=tile.top, left=tile.left, size=size)
    return placed(found, masks, scale=torch.ones_like(shift), shift=shift)


def placed(found: Detections, masks: Masks | None, *, scale: Tensor, shift: Tensor) -> Detections:
    """Detections where every point (x, y) has gone to scale * (x, y) + shift, with their masks as they are there."""
    keypoints = found.keypoints
    if keypoints is not None:
        keypoints = torch.cat([keypoints[..., :2] * scale + shift, keypoints[..., 2:]], dim=-1)
    factor, offset = scale.repeat(2), shift.repeat(2)
    return replace(
        found,
        boxes=found.boxes * factor + offset,
        masks=masks,
        keypoints=keypoints,
        origins=None if found.origins is None else found.origins * factor + offset,
    )


def _which_cut(boxes: Tensor, tiles: Sequence[Tile], counts: Sequence[int], size: Size) -> list[bool]:
    small = BETTER_IN_TILES * min(min(tile.height, tile.width) for tile in tiles)
    cut: list[bool] = []
    for tile, own in zip(tiles, torch.split(boxes, list(counts)), strict=True):
        if len(tiles) > 1 and (tile.height, tile.width) == size:
            cut += ((own[:, 2:] - own[:, :2]).amax(dim=1) <= small).tolist()
            continue
        near = max(NEAR_PIXELS, NEAR_PART * min(tile.height, tile.width))
        cut += cut_sides(own, tile.box, size, near).any(dim=1).tolist()
    return cut


def _neighbours(found: Detections, tiles: Sequence[Tile], counts: Tensor) -> dict[int, list[Neighbour]]:
    """Of each box the boxes of other tiles, of its class, that overlap it."""
    numbers = torch.split(torch.arange(len(found)), counts.tolist())
    near: dict[int, list[Neighbour]] = defaultdict(list)
    for first, second in _touching(tiles):
        shared = _shared(tiles[first], tiles[second])
        pairs = tile_pairs(found.boxes, found.labels, numbers[first], numbers[second], shared)
        for one, two, iou, one_covered, two_covered, shared_iou in zip(*(c.tolist() for c in pairs), strict=True):
            near[one].append(Neighbour(two, iou, one_covered, shared_iou))
            near[two].append(Neighbour(one, iou, two_covered, shared_iou))
    return near


def _touching(tiles: Sequence[Tile]) -> Iterator[tuple[int, int]]:
    """Numbers of the tiles that share pixels, each pair once. They come row by row, the whole image apart."""
    by_top = sorted(range(len(tiles)), key=lambda number: tiles[number].top)
    for place, first in enumerate(by_top):
        bottom = tiles[first].top + tiles[first].height
        for second in by_top[place + 1 :]:
            if tiles[second].top >= bottom:
                break
            if _shared(tiles[first], tiles[second])[2] > _shared(tiles[first], tiles[second])[0]:
                yield first, second


def _shared(one: Tile, two: Tile) -> tuple[int, int, int, int]:
    a, b = one.box, two.box
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _choose(
    scores: Sequence[float], cut: Sequence[bool], neighbours: dict[int, list[Neighbour]]
) -> tuple[list[bool], dict[int, list[int]]]:
    """Which boxes stay, and of those the ones that they dropped for being the same."""
    kept = [True] * len(scores)
    dropped_by: dict[int, list[int]] = defaultdict(list)
    settled: set[int] = set()
    for number in sorted(neighbours, key=lambda number: (cut[number], -scores[number], number)):
        for other in neighbours[number]:
            if other.number not in settled or not kept[other.number]:
                continue
            if cut[number] and cut[other.number] and other.shared_iou > JOINED_IOU:
                continue  # pieces of one object, which are joined
            same = other.iou > SAME_IOU
            if same or (cut[number] and not cut[other.number] and other.covered > PIECE_COVERED):
                kept[number] = False
                if same:
                    dropped_by[other.number].append(number)
                break
        settled.add(number)
    return kept, dropped_by


def _voted(found: Detections, dropped_by: dict[int, list[int]], cut: Sequence[bool]) -> Tensor:
    boxes = found.boxes.clone()
    for number, others in dropped_by.items():
        votes = torch.tensor([number, *(other for other in others if not cut[other])])
        weights = found.scores[votes]
        boxes[number] = (found.boxes[votes] * weights[:, None]).sum(dim=0) / weights.sum()
    return boxes


def _pieces_of_one(
    kept: Sequence[bool], cut: Sequence[bool], neighbours: dict[int, list[Neighbour]]
) -> list[list[int]]:
    """The kept boxes, those together that are pieces of one object."""
    leader = {number: number for number, stays in enumerate(kept) if stays}

    def lead(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    for number in sorted(neighbours):
        for other in neighbours[number]:
            pieces = kept[number] and kept[other.number] and cut[number] and cut[other.number]
            if pieces and other.shared_iou > JOINED_IOU:
                leader[lead(number)] = lead(other.number)
    groups: dict[int, list[int]] = defaultdict(list)
    for number in leader:
        groups[lead(number)].append(number)
    return [*groups.values()]


def _joined(found: Detections, groups: Sequence[Sequence[int]]) -> Detections:
    """The same, where the first of each group has become all of it."""
    boxes, scores = found.boxes.clone(), found.scores.clone()
    keypoints = None if found.keypoints is None else found.keypoints.clone()
    several = [group for group in groups if len(group) > 1]
    for group in several:
        first, all_of_it = group[0], torch.tensor(group)
        own = found.boxes[all_of_it]
        boxes[first] = torch.cat([own[:, :2].amin(dim=0), own[:, 2:].amax(dim=0)])
        scores[first] = found.scores[all_of_it].max()
        if keypoints is not None and found.keypoints is not None:
            points = found.keypoints[all_of_it]
            best = points[..., 2].argmax(dim=0)
            keypoints[first] = points[best, torch.arange(points.shape[1])]
    masks = found.masks
    if masks is not None and several:
        masks = masks.united(several)
    return replace(found, boxes=boxes, scores=scores, keypoints=keypoints, masks=masks)
