"""Traces on their way to disk and back, for a diagnosis that was stopped."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fpn.evaluation.unfinished import KeptImage, keep_detections, kept_detections
from fpn.preprocessing.frame import Frame
from fpn.shapes import Size
from fpn.studies.diagnosis.stages import ImageTrace, LostObject, Mark

_FOUND, _MATCHED, _REPAIRED = "found.", "matched", "repaired."


def pack_trace(frame: Frame, trace: ImageTrace) -> KeptImage:
    """What became of one image's objects, and where the image lies in the network's pixels."""
    tensors = {_MATCHED: trace.matched, **keep_detections(trace.found, _FOUND).tensors}
    for stage, repaired in trace.repaired.items():
        tensors.update(keep_detections(repaired, f"{_REPAIRED}{stage}.").tensors)
    notes = {
        "frame": asdict(frame),
        "levels": trace.levels,
        "found_levels": trace.found_levels,
        "lost": [asdict(lost) for lost in trace.lost],
        "repaired": list(trace.repaired),
    }
    return KeptImage(tensors, notes)


def unpack_trace(finding: KeptImage) -> tuple[Frame, ImageTrace]:
    """The same, to the bit."""
    notes = finding.notes
    boxes_only = KeptImage(finding.tensors)
    trace = ImageTrace(
        found=kept_detections(boxes_only, _FOUND),
        matched=finding.tensors[_MATCHED],
        levels=tuple(notes["levels"]),
        found_levels=tuple(notes["found_levels"]),
        lost=[_lost(values) for values in notes["lost"]],
        repaired={stage: kept_detections(boxes_only, f"{_REPAIRED}{stage}.") for stage in notes["repaired"]},
    )
    return _frame(notes["frame"]), trace


def _lost(values: dict[str, Any]) -> LostObject:
    marks = tuple(Mark(mark["what"], tuple(mark["box"]), mark["text"]) for mark in values["marks"])
    return LostObject(**{**values, "marks": marks})


def _frame(values: dict[str, Any]) -> Frame:
    pairs = {name: tuple(values[name]) for name in ("scale", "offset")}
    sizes = {name: None if values[name] is None else Size(*values[name]) for name in ("original", "network", "content")}
    return Frame(**{**values, **pairs, **sizes})
