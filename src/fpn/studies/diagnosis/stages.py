"""Where an object can be lost, in the order in which an image passes, and what is told of one that was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from fpn.structures import Detections, ImageBatch, Targets

# An object is found by a detection of its class that overlaps it so far, COCO's and VOC's first threshold.
FOUND_IOU = 0.5


@dataclass(frozen=True)
class Stage:
    """One place where objects are lost.

    Attributes:
        name: in JSON and CSV files.
        title: in tables.
        meaning: when exactly an object is counted here.
        repair: what is put right, and from where on the image passes again, when its points are counted.
    """

    name: str
    title: str
    meaning: str
    repair: str


@dataclass(frozen=True)
class Mark:
    """A box to draw for a lost object: which one it is, where, in network pixels until it leaves the tracer."""

    what: str
    box: tuple[float, float, float, float]
    text: str

    @classmethod
    def of(cls, what: str, box: Tensor, text: str) -> Mark:
        """Of a box (4,)."""
        x1, y1, x2, y2 = box.tolist()
        return cls(what, (x1, y1, x2, y2), text)


@dataclass(frozen=True)
class LostObject:
    """An object that was not found.

    Attributes:
        row: its number among the truth of its image.
        label: its class, the detector's.
        stage: name of the stage that lost it.
        reason: one line.
        level: the pyramid level of its size.
        side: square root of its area, network pixels.
        value: what the remedy is reckoned from (see `remedies`), or None.
        marks: the truth, the best anchor, proposal and detection.
    """

    row: int
    label: int
    stage: str
    reason: str
    level: str
    side: float
    value: float | None = None
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class ImageTrace:
    """What became of one image's objects, network pixels.

    Attributes:
        found: detections that reach the threshold, best first.
        matched: (n,) number of the object that each of them found; -1: none; -2: it lies in what is to be ignored.
        levels: the pyramid level of the size of each object, those to be ignored left out.
        found_levels: the same of each detection.
        lost: objects that none of them found.
        repaired: stage -> detections that reach the threshold, were that stage without fault; only stages that lost
            an object here.
    """

    found: Detections
    matched: Tensor
    levels: tuple[str, ...]
    found_levels: tuple[str, ...]
    lost: list[LostObject]
    repaired: dict[str, Detections] = field(default_factory=dict)


@runtime_checkable
class Tracer(Protocol):
    """Follows objects through one kind of detector. A new kind brings one, and a line in `diagnosis.find_tracer`.

    Attributes:
        stages: where it can lose them, in order.
    """

    @property
    def stages(self) -> tuple[Stage, ...]: ...  # noqa: D102

    def remedy(self, stage: str, values: Sequence[float]) -> str:
        """One line on a stage or kind of false alarm, by what `LostObject.value` is of the objects lost there."""

    def trace(self, images: ImageBatch, truths: Sequence[Targets]) -> list[ImageTrace]:
        """What became of B images' objects; labels are the detector's, boxes in network pixels."""
