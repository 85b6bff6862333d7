"""What the rows cost: time, parameters, multiply-adds and peak memory, all on the same image."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from fpn.detectors.detector import Detector, count_parameters
from fpn.detectors.modes import evaluating
from fpn.structures import ImageBatch, Targets
from fpn.studies.ablation.outcomes import Cost


def measure_costs(
    detectors: Mapping[str, Detector],
    images: ImageBatch,
    targets: Sequence[Targets],
    *,
    rounds: int = 7,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Cost]:
    """Costs by row. Rows take turns in each round, so that a slow minute of the machine hits all of them.

    Args:
        detectors: trained ones: how many boxes go through NMS depends on what they have learnt.
        images: a batch of one image.
        targets: its objects.
        rounds: timings a row, of which the median counts; one more round warms up.
        progress: called with the number of rounds done.
    """
    detect: dict[str, list[float]] = {row: [] for row in detectors}
    train: dict[str, list[float]] = {row: [] for row in detectors}
    for number in range(rounds + 1):
        for row, detector in detectors.items():
            detect[row].append(_seconds(detector, lambda d=detector: _detect(d, images)))  # type: ignore[misc]
            train[row].append(_seconds(detector, lambda d=detector: _learn(d, images, targets)))  # type: ignore[misc]
        if progress is not None:
            progress(number)
    return {
        row: Cost(
            detect_ms=1000 * statistics.median(detect[row][1:]),
            train_ms=1000 * statistics.median(train[row][1:]),
            parameters=count_parameters(detector),
            multiply_adds=_multiply_adds(detector, images),
            detect_bytes=_peak_bytes(detector, lambda d=detector: _detect(d, images)),  # type: ignore[misc]
            train_bytes=_peak_bytes(detector, lambda d=detector: _learn(d, images, targets)),  # type: ignore[misc]
        )
        for row, detector in detectors.items()
    }


def _detect(detector: Detector, images: ImageBatch) -> None:
    with evaluating(detector), torch.no_grad():
        detector.detect(images)


def _learn(detector: Detector, images: ImageBatch, targets: Sequence[Targets]) -> None:
    detector.train()
    generator = torch.Generator(images.pixels.device).manual_seed(0)
    detector.losses(images, targets, generator=generator).total.backward()  # type: ignore[no-untyped-call]
    detector.zero_grad(set_to_none=True)


def _seconds(detector: Detector, work: Callable[[], None]) -> float:
    _wait(detector.device)
    began = time.perf_counter()
    work()
    _wait(detector.device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _multiply_adds(detector: Detector, images: ImageBatch) -> int:
    with FlopCounterMode(display=False) as counter:
        _detect(detector, images)
    return int(counter.get_total_flops()) // 2  # it counts a multiply-add as two operations


def _peak_bytes(detector: Detector, work: Callable[[], None]) -> int:
    """Weights and buffers, and the most that was allocated on top of them at once."""
    own = sum(tensor.numel() * tensor.element_size() for tensor in (*detector.parameters(), *detector.buffers()))
    if detector.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(detector.device)
        before = torch.cuda.memory_allocated(detector.device)
        work()
        return own + int(torch.cuda.max_memory_allocated(detector.device)) - before
    return own + _profiled_peak(work)


def _profiled_peak(work: Callable[[], None]) -> int:
    """From torch's allocator. The process's own peak would hold what other rows and the interpreter needed, too."""
    # Where a GPU build of torch finds no GPU, the profiler complains on standard error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding="utf-8"))
    changes = [(each["ts"], each["args"]["Bytes"]) for each in trace["traceEvents"] if each.get("name") == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda each: each[0]):
        held += change
        peak = max(peak, held)
    return peak
