"""How long each stage of an image's way takes, on both sides."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fpn.detectors import Detector, OneStageDetector
from fpn.studies.benchmark.turns import synchronize

STAGES = (
    "decode",
    "preprocess",
    "backbone",
    "pyramid",
    "rpn",
    "pooling",
    "heads",
    "nms",
    "postprocess",
)


class Stopwatch:
    """Seconds of processor and wall time in each stage; what a stage calls of another counts for that one alone.

    Attributes:
        wall: wall time a stage.
    """

    def __init__(self, device: torch.device) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self._device = device
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is inside for a stage."""
        self._settle()
        self._open.append(name)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, counted for a stage."""

        def counted(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return work(*arguments, **options)

        return counted

    def _settle(self) -> None:
        synchronize(self._device)
        now = time.perf_counter()
        if self._open:
            self.wall[self._open[-1]] += now - self._since
        self._since = now


@contextmanager
def watched(watch: Stopwatch, places: list[tuple[Any, str, str]]) -> Iterator[None]:
    """Count calls of methods, each (owner, method, stage), for a while."""
    before = [(owner, name, owner.__dict__.get(name)) for owner, name, _ in places]
    for owner, name, stage in places:
        owner.__dict__[name] = watch.timed(stage, getattr(owner, name))
    try:
        yield
    finally:
        for owner, name, value in before:
            if value is None:
                del owner.__dict__[name]
            else:
                owner.__dict__[name] = value


def our_places(detector: Detector) -> list[tuple[Any, str, str]]:
    """Where our stages begin; an optimized detector works through the one inside of it."""
    inner: Any = getattr(detector, "inner", detector)
    shared = [(inner.features, "forward", "pyramid"), (inner.features.backbone, "forward", "backbone")]
    if isinstance(inner, OneStageDetector):
        return [*shared, (inner.head, "forward", "heads"), (inner.head, "detect", "nms")]
    completing = [
        place
        for head in inner.roi_heads.completing
        for place in ((head, "complete", "heads"), (head, "pooler", "pooling"))
    ]
    return [
        *shared,
        (inner.rpn, "forward", "rpn"),
        (inner.rpn, "propose", "rpn"),
        (inner.rpn, "_suppress", "nms"),
        (inner.roi_heads.box, "detect", "heads"),
        (inner.roi_heads.box, "pooler", "pooling"),
        (inner.roi_heads.box, "_select", "nms"),
        *completing,
    ]


def their_places(model: nn.Module) -> list[tuple[Any, str, str]]:
    """Where torchvision's stages begin."""
    theirs: Any = model
    shared = [
        (theirs.transform, "forward", "preprocess"),
        (theirs.backbone, "forward", "pyramid"),
        (theirs.backbone.body, "forward", "backbone"),
        (theirs.transform, "postprocess", "postprocess"),
    ]
    if not hasattr(theirs, "roi_heads"):
        return [
            *shared,
            (theirs.head, "forward", "heads"),
            (theirs.anchor_generator, "forward", "nms"),
            (theirs, "postprocess_detections", "nms"),
        ]
    pools = [getattr(theirs.roi_heads, f"{head}_roi_pool") for head in ("box", "mask", "keypoint")]
    return [
        *shared,
        (theirs.rpn, "forward", "rpn"),
        (theirs.rpn, "filter_proposals", "nms"),
        (theirs.roi_heads, "forward", "heads"),
        *((pool, "forward", "pooling") for pool in pools if pool is not None),
        (theirs.roi_heads, "postprocess_detections", "nms"),
    ]
