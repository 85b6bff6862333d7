"""Inference side by side: from a JPEG file to boxes in its pixels."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.functional import pil_to_tensor

from fpn.detectors import Detector
from fpn.detectors.prediction import enter, leave, preparing
from fpn.image_io import read_image
from fpn.structures import Detections
from fpn.studies.benchmark.agreement import share_with_twin
from fpn.studies.benchmark.stages import STAGES, Stopwatch, our_places, their_places, watched
from fpn.studies.benchmark.turns import Side, in_turns


@dataclass(frozen=True)
class Inference:
    """What was measured on one batch.

    Attributes:
        sides: "torchvision" and our ways, from file to boxes.
        agreement: of torchvision's sure detections, the share that each of our ways has too.
        stages: seconds by side and stage, medians.
        gigaflops: by stage, of our unchanged network; the optimized one may need fewer operations for the same.
    """

    sides: dict[str, Side]
    agreement: dict[str, float]
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    gigaflops: dict[str, float] = field(default_factory=dict)


def time_detection(
    ways: dict[str, Detector], theirs: nn.Module, paths: Sequence[Path], *, repeats: int, first_label: int = 1
) -> Inference:
    """Time our ways and torchvision's, in turns, on the same files.

    Args:
        ways: detectors with the same weights, by name; the first is unchanged, the last one's stages are shown.
        theirs: torchvision's, in eval mode.
        paths: one batch.
        repeats: turns.
        first_label: see `share_with_twin`.
    """
    device = next(theirs.parameters()).device
    works: dict[str, Callable[[], Any]] = {"torchvision": lambda: their_detections(theirs, paths)}
    for name, detector in ways.items():
        works[name] = lambda each=detector: our_detections(each, paths)  # type: ignore[misc]
    sides = in_turns(works, repeats=repeats, device=device)
    expected = sides["torchvision"].outcome
    agreement = {name: share_with_twin(sides[name].outcome, expected, first_label=first_label) for name in ways}
    plain, shown = next(iter(ways)), list(ways)[-1]
    staged = {
        "torchvision": _staged(repeats, device, their_places(theirs), lambda w: their_detections(theirs, paths, w)),
        shown: _staged(repeats, device, our_places(ways[shown]), lambda w: our_detections(ways[shown], paths, w)),
    }
    return Inference(sides, agreement, staged, count_gigaflops(ways[plain], paths))


@torch.inference_mode()
def our_detections(detector: Detector, paths: Sequence[Path], watch: Stopwatch | None = None) -> list[Detections]:
    """The steps of `fpn.detectors.prediction` one after the other, so that they can be timed."""
    watch = watch or Stopwatch(torch.device("cpu"))
    with watch.stage("decode"):
        decoded = [read_image(path) for path in paths]
    with watch.stage("preprocess"):
        preprocessor = preparing(detector)
        prepared = [preprocessor.prepare(image) for image in decoded]
        images = enter(detector, prepared)
    found = detector.detect(images)
    with watch.stage("postprocess"):
        return leave(detector, found, prepared)


@torch.inference_mode()
def their_detections(
    model: nn.Module, paths: Sequence[Path], watch: Stopwatch | None = None
) -> list[dict[str, Tensor]]:
    """As torchvision's own reference reads images."""
    watch = watch or Stopwatch(torch.device("cpu"))
    device = next(model.parameters()).device
    with watch.stage("decode"):
        images = [pil_to_tensor(read_image(path)) for path in paths]
    with watch.stage("preprocess"):
        pixels = [image.to(device).float() / 255 for image in images]
    found: list[dict[str, Tensor]] = model(pixels)
    return found


def _staged(
    repeats: int, device: torch.device, places: list[tuple[Any, str, str]], work: Callable[[Stopwatch], Any]
) -> dict[str, float]:
    """Median seconds of each stage. The turns are the stages' own: on a GPU each stage is waited for."""
    runs = []
    for _ in range(repeats):
        watch = Stopwatch(device)
        with watched(watch, places):
            work(watch)
        runs.append(watch.wall)
    return {stage: statistics.median(run[stage] for run in runs) for stage in STAGES}


def count_gigaflops(detector: Detector, paths: Sequence[Path]) -> dict[str, float]:
    """Floating-point operations by stage, in 1e9; a multiplication with its addition counts as two."""
    with FlopCounterMode(display=False) as counter:
        our_detections(detector, paths)
    parts = {name: type(part).__name__ for name, part in detector.named_children()}
    # The counter's keys are paths from the outermost module that was called: "FeatureExtractor.backbone".
    places = {"backbone": f"{parts['features']}.backbone", "pyramid": parts["features"], "rpn": parts.get("rpn", "")}
    counts = counter.get_flop_counts()
    found = {stage: sum(counts.get(place, {}).values()) / 1e9 for stage, place in places.items()}
    found["heads"] = sum(counts["Global"].values()) / 1e9 - found["pyramid"] - found["rpn"]
    found["pyramid"] -= found["backbone"]
    return found
