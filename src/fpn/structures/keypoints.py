"""Keypoints (N, J, 3): x, y and visibility, and the skeleton that says what each of the J is.

Visibility is COCO's: 0 not labelled (x and y are then 0), 1 labelled but hidden, 2 labelled and visible. Of detections
the third number is a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fpn.errors import ConfigError
from fpn.shapes import Size


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What the J keypoints of a dataset's objects are.

    Attributes:
        names: of the J keypoints, in order.
        flip_pairs: numbers of those that change places in a mirror, such as (left eye, right eye).
        edges: numbers of those that a line joins where they are drawn.
        sigmas: J falloffs of COCO's object keypoint similarity, or empty: not known.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...] = ()
    edges: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for what, pairs in (("flip_pairs", self.flip_pairs), ("edges", self.edges)):
            beyond = [number for pair in pairs for number in pair if not 0 <= number < len(self.names)]
            if beyond:
                raise ConfigError(f"skeleton: {what} names keypoint {beyond[0]}, there are 0 to {len(self.names) - 1}")
        paired = [number for pair in self.flip_pairs for number in pair]
        if len(set(paired)) != len(paired):
            raise ConfigError("skeleton: a keypoint is in two flip_pairs")
        if self.sigmas and len(self.sigmas) != len(self.names):
            raise ConfigError(f"skeleton: {len(self.sigmas)} sigmas for {len(self.names)} keypoints")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def named(cls, names: tuple[str, ...], edges: tuple[tuple[int, int], ...] = ()) -> Skeleton:
        """Pairs by their names, which differ in "left" and "right"; sigmas if these are COCO's seventeen."""
        if names == COCO_PERSON.names:
            return cls(names, COCO_PERSON.flip_pairs, edges, COCO_PERSON.sigmas)
        numbers = {name.lower(): number for number, name in enumerate(names)}
        twins = {name: name.replace("left", "right") for name in numbers if "left" in name}
        pairs = tuple((numbers[name], numbers[twin]) for name, twin in twins.items() if twin in numbers)
        return cls(names, pairs, edges)

    def to_coco(self) -> dict[str, list[Any]]:
        """What a COCO category says of its keypoints: names, and lines between numbers from 1."""
        return {"keypoints": list(self.names), "skeleton": [[one + 1, other + 1] for one, other in self.edges]}

    def flip_order(self) -> list[int]:
        """Which keypoint of the image stands at each place of its mirror image."""
        order = list(range(len(self.names)))
        for one, other in self.flip_pairs:
            order[one], order[other] = other, one
        return order


def map_keypoints(
    keypoints: Float[Tensor, "n j 3"],
    *,
    scale: tuple[float, float],
    offset: tuple[float, float],
    scored: bool = False,
) -> Float[Tensor, "n j 3"]:
    """Every point (y, x) moved to scale * (y, x) + offset.

    Those not labelled stay 0; if the third number is a score (`scored`), all are moved.
    """
    factor = keypoints.new_tensor([scale[1], scale[0], 1.0])
    moved = keypoints * factor + keypoints.new_tensor([offset[1], offset[0], 0.0])
    return moved if scored else torch.where(keypoints[..., 2:] == 0, 0.0, moved)


def cut_keypoints(keypoints: Float[Tensor, "n j 3"], size: Size) -> Float[Tensor, "n j 3"]:
    """Those outside of an image of that size are no longer labelled."""
    x, y = keypoints[..., 0], keypoints[..., 1]
    inside = (x >= 0) & (x <= size.width) & (y >= 0) & (y <= size.height)
    return torch.where(inside[..., None], keypoints, 0.0)


_SIDES = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
# Source: cocoapi, pycocotools/cocoeval.py, Params.kpt_oks_sigmas; names and edges as person_keypoints_*.json has them.
COCO_PERSON = Skeleton(
    names=("nose", *(f"{side}_{part}" for part in _SIDES for side in ("left", "right"))),
    flip_pairs=tuple((number, number + 1) for number in range(1, 17, 2)),
    edges=tuple(
        (one - 1, other - 1)
        for one, other in (
            (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9),
            (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
        )
    ),
    sigmas=(0.026, *(s for s in (0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089) for _ in range(2))),
)  # fmt: skip
