"""What happened to a lost object, and what has to be put right so that it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fpn.structures import Detections, Targets

# Changes what the head said of the RoIs of an image, in place: logits (N, K+1) and deltas (N, 4K or 4).
Edit = Callable[[Tensor, Tensor], None]


def _keep(logits: Tensor, deltas: Tensor) -> None:
    """Nothing is wrong with what the head said."""


@dataclass(frozen=True)
class Repair:
    """How one object passes the stage that lost it.

    Attributes:
        rois: (m, 4) RoIs that the head gets beside its proposals; None: none.
        edit: what changes of what the head said.
        detection: what is given beside the rest; None: nothing.
        start: number of the box head of a cascade that reads `rois` first.
    """

    rois: Tensor | None = None
    edit: Edit = field(default=_keep)
    detection: Detections | None = None
    start: int = 0


@dataclass(frozen=True)
class Fate:
    """The stage that lost an object, in one line why, and how it would have passed."""

    stage: str
    reason: str
    repair: Repair
    value: float | None = None


@dataclass(frozen=True)
class TraceableObjects:
    """The objects of an image that can be found: boxes (m, 4), labels (m,), and their rows in its truth (m,)."""

    boxes: Tensor
    labels: Tensor
    rows: Tensor

    @classmethod
    def of(cls, truth: Targets) -> TraceableObjects:
        """Without what is to be ignored."""
        rows = (~truth.ignore).nonzero().squeeze(1)
        return cls(truth.boxes[rows], truth.labels[rows], rows)

    def __len__(self) -> int:
        return len(self.rows)


def strongest(which: Tensor, values: Tensor) -> int:
    """The place of the highest value where `which` is true."""
    return int(torch.where(which, values, -torch.inf).argmax())
