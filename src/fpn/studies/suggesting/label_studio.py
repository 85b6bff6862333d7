"""Drafts of labels for Label Studio: its basic JSON format with predictions, and the labelling interface they fit.

Source: labelstud.io/guide/predictions and labelstud.io/guide/task_format: boxes are in percent of the image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from fpn.files import write_text
from fpn.structures import Classes, Detections
from fpn.studies.suggesting.suggest import Suggestion

# What Label Studio serves of its folder LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.
LOCAL_FILES = "/data/local-files/?d="
TASKS, INTERFACE = "label_studio.json", "label_studio.xml"
_LABEL, _IMAGE = "label", "image"


def write_label_studio(
    chosen: Sequence[tuple[Suggestion, Detections]], classes: Classes, folder: Path, *, prefix: str, model: str
) -> None:
    """Write tasks and the labelling interface.

    Args:
        chosen: images with the detections that become drafts, best first.
        classes: names of the labels.
        folder: to write to.
        prefix: what stands before each image's path within the folder that all are in.
        model: what Label Studio calls the predictions' origin.

    Raises:
        OutputError: a file can't be written.
    """
    tasks = [
        _task(rank, suggestion, drafts, classes, prefix, model)
        for rank, (suggestion, drafts) in enumerate(chosen, start=1)
    ]
    write_text(folder / TASKS, json.dumps(tasks, indent=1) + "\n")
    write_text(folder / INTERFACE, _interface(classes))


def _task(
    rank: int, suggestion: Suggestion, drafts: Detections, classes: Classes, prefix: str, model: str
) -> dict[str, Any]:
    mean = float(drafts.scores.mean()) if len(drafts) else 0.0
    return {
        "data": {_IMAGE: prefix + quote(suggestion.name), "rank": rank, "reason": suggestion.reason},
        "predictions": [
            {"model_version": model, "score": round(mean, 6), "result": _regions(suggestion, drafts, classes)}
        ],
    }


def _regions(suggestion: Suggestion, drafts: Detections, classes: Classes) -> list[dict[str, Any]]:
    height, width = suggestion.size
    regions = []
    columns = zip(drafts.boxes.double().tolist(), drafts.scores.tolist(), drafts.labels.tolist(), strict=True)
    for number, ((x1, y1, x2, y2), score, label) in enumerate(columns, start=1):
        value = {
            "x": 100 * x1 / width,
            "y": 100 * y1 / height,
            "width": 100 * (x2 - x1) / width,
            "height": 100 * (y2 - y1) / height,
            "rotation": 0,
            "rectanglelabels": [classes[label]],
        }
        regions.append(
            {
                "id": f"box-{number}",
                "type": "rectanglelabels",
                "from_name": _LABEL,
                "to_name": _IMAGE,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": value,
                "score": round(score, 6),
            }
        )
    return regions


def _interface(classes: Classes) -> str:
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes)
    return (
        f'<View>\n  <Image name="{_IMAGE}" value="${_IMAGE}"/>\n'
        f'  <RectangleLabels name="{_LABEL}" toName="{_IMAGE}">\n{labels}  </RectangleLabels>\n</View>\n'
    )
