"""Drawn scenes: images made by a seed, with exact boxes and masks. Data for the demo, for tests, for first trials.

Six shapes of all sizes lie on textured grounds, turned, overlapping, cut by the border, in any colour, lit unevenly and
with noise. What is drawn is labelled and what is labelled can be seen: an object that would hide more than half of
another one is put elsewhere or left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fpn.data.dataset import Dataset
from fpn.data.synthetic.paint import background, finish, paint_object
from fpn.data.synthetic.shapes import SHAPES, Patch, Pose
from fpn.errors import ConfigError
from fpn.ops import run_lengths as run_ops
from fpn.shapes import Size
from fpn.structures import Classes, Masks, Skeleton, Targets

# An object is labelled by what can be seen of it, which is at least this part of the whole.
_MIN_VISIBLE = 0.5
_TRIES = 12
_GROUND = -1
# An object's corner is seen if what lies this part of the way from it to the centre is the object's own.
_CORNER_DEPTH = 0.15
CORNERS = Skeleton(
    names=("top", "right", "bottom", "left"),
    flip_pairs=((1, 3),),
    edges=((0, 1), (1, 2), (2, 3), (3, 0)),
    sigmas=(0.05,) * 4,
)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What stands where in one scene, back to front.

    Attributes:
        size: of the image.
        poses, patches: the N objects; patches are clipped to the image.
        owner: (H, W) int16, the number of the object seen at each pixel, -1 for the ground.
    """

    size: Size
    poses: list[Pose]
    patches: list[Patch]
    owner: np.ndarray


class SceneDataset(Dataset):
    """Scenes drawn when they are asked for, each a function of (seed, index) and the settings alone.

    Another seed gives other scenes, so training and held-out scenes are `SceneDataset(1000, seed=0)` and
    `SceneDataset(100, seed=1)`.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int = 0,
        height: int | tuple[int, int] = 256,
        width: int | tuple[int, int] = (256, 320),
        objects: tuple[int, int] = (1, 9),
        extent: tuple[float, float] = (8.0, 300.0),
        keypoints: bool = False,
    ) -> None:
        """Describe the scenes; nothing is drawn yet.

        Args:
            count: number of scenes.
            seed: which scenes, any whole number >= 0.
            height: of the images in pixels; a pair means anything from the first to the second.
            width: likewise.
            objects: fewest and most objects an image. A crowded image may end up with fewer than was drawn by lot.
            extent: smallest and largest object, the longer side of its box when nothing hides it, in pixels; every
                octave between is equally likely. No object gets larger than 0.9 of the image's shorter side.
            keypoints: give objects their `CORNERS`: the uppermost, rightmost, lowest and leftmost point of the whole
                outline, 2 where it is seen, 1 where another object hides it, 0 outside of the image. These names hold
                for the image as it is drawn: don't train on it upside down or turned.

        Raises:
            ConfigError: a setting is out of range.
        """
        self.count, self.seed = count, seed
        self.heights, self.widths = _pair(height), _pair(width)
        self.objects, self.extent = objects, extent
        self._check()
        self.classes = Classes.of(SHAPES)
        self.skeleton = CORNERS if keypoints else None
        self.name, self.root = f"scenes-{seed}", Path()
        self._last: tuple[int, _Layout] | None = None

    def __len__(self) -> int:
        return self.count

    def image_id(self, index: int) -> int:
        """See `Dataset.image_id`: 1.. in order."""
        return self._number(index) + 1

    def path(self, index: int) -> str:
        """A name; scenes are not on disk."""
        return f"scene {self._number(index)} of seed {self.seed}"

    def size(self, index: int) -> Size:
        """See `Dataset.size`."""
        return self._draw_size(self._random(self._number(index), stream=0))

    def targets(self, index: int, *, masks: bool = False) -> Targets:
        """See `Dataset.targets`: masks are what can be seen of each object, boxes fit tightly around them."""
        layout = self._layout(self._number(index))
        boxes = [_visible_box(layout, number) for number in range(len(layout.poses))]
        labels = [SHAPES.index(pose.shape) for pose in layout.poses]
        return Targets(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(labels, dtype=torch.int64),
            masks=_masks(layout) if masks else None,
            keypoints=None if self.skeleton is None else _corners(layout),
        )

    def unoutlined(self, index: int) -> int:
        """See `Dataset.unoutlined`: every object is seen."""
        return 0

    def image(self, index: int) -> Image.Image:
        """See `Dataset.image`."""
        number = self._number(index)
        layout, random = self._layout(number), self._random(number, stream=1)
        canvas = background(random, *layout.size)
        shadow = bool(random.random() < 0.5)
        for pose, patch in zip(layout.poses, layout.patches, strict=True):
            paint_object(random, canvas, pose, patch, shadow=shadow)
        return finish(random, canvas)

    def annotations(self, index: int) -> list[dict[str, Any]]:
        """See `Dataset.annotations`: with the visible area and an uncompressed RLE mask."""
        records = super().annotations(index)
        masks = _masks(self._layout(self._number(index)))
        codes = masks.to_coco(compressed=False)
        for record, area, code in zip(records, masks.areas().tolist(), codes, strict=True):
            record["area"], record["segmentation"] = float(area), code
        return records

    def _layout(self, number: int) -> _Layout:
        # A sample asks twice, for the image and for its objects.
        if self._last is None or self._last[0] != number:
            self._last = number, self._arrange(self._random(number, stream=0))
        return self._last[1]

    def _random(self, number: int, *, stream: int) -> np.random.Generator:
        # Two streams: the objects can be known without painting the image.
        return np.random.default_rng((self.seed, number, stream))

    def _draw_size(self, random: np.random.Generator) -> Size:
        height, width = (int(random.integers(low, high + 1)) for low, high in (self.heights, self.widths))
        return Size(height, width)

    def _arrange(self, random: np.random.Generator) -> _Layout:
        size = self._draw_size(random)
        layout = _Layout(size, [], [], np.full(size, _GROUND, dtype=np.int16))
        whole: list[int] = []
        for _ in range(int(random.integers(self.objects[0], self.objects[1] + 1))):
            shape = SHAPES[int(random.integers(len(SHAPES)))]
            extent = self._draw_extent(random, size)
            for _ in range(_TRIES):
                if _place(layout, whole, _draw_pose(random, shape, extent, size)):
                    break
        return layout

    def _draw_extent(self, random: np.random.Generator, size: Size) -> float:
        low, high = self.extent
        high = max(low, min(high, 0.9 * min(size)))
        return math.exp(random.uniform(math.log(low), math.log(high)))

    def _check(self) -> None:
        ranges = {"height": self.heights, "width": self.widths, "objects": self.objects, "extent": self.extent}
        for name, (low, high) in ranges.items():
            if low > high:
                raise ConfigError(f"{name}={low, high}: the first must not be larger than the second")
        if self.count < 0 or self.seed < 0 or self.objects[0] < 0:
            raise ConfigError(f"count={self.count}, seed={self.seed}, objects={self.objects}: none may be negative")
        smallest = min(self.heights[0], self.widths[0])
        if self.extent[0] < 4 or self.extent[0] > smallest:
            raise ConfigError(
                f"extent={self.extent}: objects below 4 pixels can't be told apart, and the smallest must fit into the "
                f"image ({smallest} pixels)"
            )


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _draw_pose(random: np.random.Generator, shape: str, extent: float, size: Size) -> Pose:
    return Pose(
        shape,
        x=random.uniform(0, size.width),
        y=random.uniform(0, size.height),
        extent=extent,
        angle=random.uniform(0, 2 * math.pi),
        stretch=math.exp(random.uniform(-0.22, 0.22)),
    )


def _place(layout: _Layout, whole: list[int], pose: Pose) -> bool:
    """Add an object in front of the others if enough of it and of all others stays visible."""
    full = pose.patch()
    area = int((full.coverage >= 128).sum())
    patch = full.clipped(*layout.size)
    own = patch.coverage >= 128
    if own.sum() < max(_MIN_VISIBLE * area, 1):
        return False
    window = layout.owner[patch.window()]
    if not _others_stay_visible(layout, whole, window[own]):
        return False
    window[own] = len(layout.poses)
    layout.poses.append(pose)
    layout.patches.append(patch)
    whole.append(area)
    return True


def _others_stay_visible(layout: _Layout, whole: list[int], hidden: np.ndarray) -> bool:
    """Whether each earlier object keeps half of its area when the pixels with these owners are covered."""
    losses = np.bincount(hidden + 1, minlength=1)[1:]
    for number in losses.nonzero()[0]:
        rows, columns = layout.patches[number].window()
        left = int((layout.owner[rows, columns] == number).sum()) - int(losses[number])
        if left < _MIN_VISIBLE * whole[number]:
            return False
    return True


def _visible_box(layout: _Layout, number: int) -> list[int]:
    rows, columns = layout.patches[number].window()
    seen = layout.owner[rows, columns] == number
    y, x = seen.any(axis=1).nonzero()[0].tolist(), seen.any(axis=0).nonzero()[0].tolist()
    return [columns.start + x[0], rows.start + y[0], columns.start + x[-1] + 1, rows.start + y[-1] + 1]


def _masks(layout: _Layout) -> Masks:
    return Masks.of_outlines([_runs(layout, number) for number in range(len(layout.poses))], layout.size)


def _runs(layout: _Layout, number: int) -> np.ndarray:
    rows, columns = layout.patches[number].window()
    seen = (layout.owner[rows, columns] == number).T
    return run_ops.runs_of_columns(seen, top=rows.start, left=columns.start, height=layout.size.height)


def _corners(layout: _Layout) -> torch.Tensor:
    """(N, 4, 3) x, y and visibility of the objects' `CORNERS`."""
    points = np.zeros((len(layout.poses), len(CORNERS), 3), dtype=np.float32)
    for number, pose in enumerate(layout.poses):
        pairs = zip(pose.corners().tolist(), pose.corners(inset=_CORNER_DEPTH).tolist(), strict=True)
        for row, ((x, y), (inner_x, inner_y)) in enumerate(pairs):
            if 0 < x < layout.size.width and 0 < y < layout.size.height:
                points[number, row] = x, y, 2 if layout.owner[int(inner_y), int(inner_x)] == number else 1
    return torch.from_numpy(points)
