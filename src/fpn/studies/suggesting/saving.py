"""A ranking on disk: as JSON, as CSV, and with drafts of labels in the format that one labels with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from fpn.data.formats.layout import WHOLE
from fpn.data.formats.write import Family, write
from fpn.data.formats.writer import Annotation, ImageRecord, Part, copy_image, link_image, new_folder, unique_names
from fpn.detectors.operating_point import sure_ones
from fpn.files import write_text
from fpn.spreadsheets import write_csv
from fpn.structures import Detections, Thresholds
from fpn.studies.suggesting.label_studio import LOCAL_FILES, write_label_studio
from fpn.studies.suggesting.suggest import Suggestion, Suggestions
from fpn.version import __version__

Target: TypeAlias = Family | Literal["label-studio"]
RANKING, TABLE, DRAFTS = "suggestions.json", "suggestions.csv", "prelabels"
COLUMNS = ("rank", "chosen", "file_name", "gain", "unlike", "unsure", "detections", "width", "height", "reason")


def save_suggestions(
    suggestions: Suggestions,
    output: str | os.PathLike[str],
    *,
    target: Target = "coco",
    score: float | Thresholds = 0.5,
    prefix: str = LOCAL_FILES,
    copy: bool = False,
    model: str = "fpn",
) -> list[str]:
    """Write a ranking and drafts of labels to a new folder, which is there whole or not at all.

    Args:
        suggestions: see `suggest`.
        output: a new or empty folder.
        target: the format of the drafts, which go to its folder "prelabels".
        score: from which score on a detection becomes a draft.
        prefix: of "label-studio": what stands before each image's path.
        copy: of the others: copy images. False: link them (hard links), where the file system can.
        model: of "label-studio": what it calls the drafts' origin.

    Returns:
        What the format can't hold.

    Raises:
        OutputError: the folder is not empty, or can't be written.
    """
    chosen = [(each, sure_ones(each.found, score)) for each in suggestions.chosen]
    with new_folder(Path(output)) as folder:
        write_text(folder / RANKING, json.dumps(_json(suggestions), indent=1) + "\n")
        write_csv(folder / TABLE, _rows(suggestions), COLUMNS)
        if target == "label-studio":
            write_label_studio(chosen, suggestions.classes, folder / DRAFTS, prefix=prefix, model=model)
            return []
        place = copy_image if copy else partial(link_image, linked=[])
        return write([_part(suggestions, chosen, target, place)], Path(), target, folder / DRAFTS)


def _json(suggestions: Suggestions) -> dict[str, Any]:
    return {
        "info": {"made_by": "fpn suggest", "version": __version__, **suggestions.about},
        "classes": list(suggestions.classes),
        "labelled_objects": suggestions.objects,
        "chosen": [_record(each, suggestions) for each in suggestions.chosen],
        "others": [_plain(each) for each in suggestions.others],
        "aside": dict(suggestions.aside),
        "unreadable": dict(suggestions.unreadable),
    }


def _record(each: Suggestion, suggestions: Suggestions) -> dict[str, Any]:
    found = each.found
    columns = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
    detections = [
        {
            "class": suggestions.classes[label],
            "score": round(score, 4),
            "box": [round(side, 2) for side in box],
        }
        for box, score, label in columns
    ]
    return {**_plain(each), "detections": detections}


def _plain(each: Suggestion) -> dict[str, Any]:
    """Without its detections, of which many images have many."""
    return {
        "file_name": each.name,
        "gain": each.gain,
        "unlike": each.unlike,
        "unsure": each.unsure,
        "reason": each.reason,
    }


def _rows(suggestions: Suggestions) -> Iterator[dict[str, Any]]:
    ranked = [*((each, True) for each in suggestions.chosen), *((each, False) for each in suggestions.others)]
    for rank, (each, chosen) in enumerate(ranked, start=1):
        yield {
            "rank": rank,
            "chosen": "yes" if chosen else "no",
            "file_name": each.name,
            "gain": round(each.gain, 6),
            "unlike": round(each.unlike, 4),
            "unsure": each.unsure,
            "detections": len(each.found),
            "width": each.size.width,
            "height": each.size.height,
            "reason": each.reason,
        }
    for name, why in {**suggestions.aside, **suggestions.unreadable}.items():
        yield {"chosen": "no", "file_name": name, "reason": why}


def _part(
    suggestions: Suggestions,
    chosen: Sequence[tuple[Suggestion, Detections]],
    family: str,
    place: Callable[[Path, Path], None],
) -> Part:
    sources = [os.path.abspath(each.path) for each, _ in chosen]  # noqa: PTH100  links stay as they are
    names = unique_names(sources)

    def images() -> Iterator[ImageRecord]:
        for number, (source, (each, drafts)) in enumerate(zip(sources, chosen, strict=True), start=1):
            said = {"fpn_reason": each.reason} if family == "coco" else {}
            yield ImageRecord(source, names[source], number, each.size, said, _annotations(drafts, family))

    header: Mapping[str, Any] = {"info": {"description": "drafts of labels by fpn suggest: correct them"}}
    return Part(WHOLE, family, suggestions.classes, header, sources, images, place=place)


def _annotations(drafts: Detections, family: str) -> list[Annotation]:
    """Drafts as objects to write. Only COCO has a place for their scores."""
    columns = zip(drafts.boxes.numpy(), drafts.scores.tolist(), drafts.labels.tolist(), strict=True)
    return [
        Annotation(
            box=box,
            label=label,
            ignore=False,
            area=float(np.nan),
            outline=None,
            extra={"score": round(score, 6)} if family == "coco" else {},
        )
        for box, score, label in columns
    ]
