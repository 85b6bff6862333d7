"""The folder that `fpn predict` writes: drawn images, a COCO-style JSON that says which are ours, and it as CSV."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from fpn.files import atomic_path, write_text
from fpn.shapes import Size
from fpn.spreadsheets import DETECTION_COLUMNS, beside, detection_row, write_csv
from fpn.structures import Classes, Detections, Skeleton
from fpn.version import __version__

NAME = "detections.json"
TABLE = str(beside(NAME))
# What `COCO.loadRes` takes: a bare list.
RESULTS = "coco_results.json"
MADE_BY = "fpn predict"


def written_before(folder: Path, lists: str = NAME) -> tuple[str, ...]:
    """Names, in the folder, of what `fpn predict` wrote to it before, in any number of runs, and is still there.

    One that was killed had named what it would draw. `lists`: the file that names it.
    """
    try:
        data = json.loads((folder / lists).read_text(encoding="utf-8"))
        if data["info"]["made_by"] != MADE_BY:
            return ()
        drawn = [image["drawn"] for image in data.get("images", ()) if "drawn" in image]
        return tuple(name for name in (*data["info"]["files"], *drawn) if os.path.lexists(folder / name))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ()


def list_categories(classes: Classes, skeleton: Skeleton | None) -> list[dict[str, Any]]:
    """As COCO's files list them, each with its keypoints where there are some."""
    points = {} if skeleton is None else skeleton.to_coco()
    return [{"id": number, "name": name, **points} for number, name in zip(classes.ids, classes.names, strict=True)]


def real_paths(folder: Path, names: Iterable[str]) -> frozenset[str]:
    """Where files of a folder really are, links followed."""
    return frozenset(os.path.realpath(folder / name) for name in names)


@dataclass
class Predictions:
    """What was found so far.

    Attributes:
        folder: where it goes.
        classes: of the detector, with the ids of its training data.
        about: what the JSON says under `info`.
        image_ids: those of a dataset, one for each image in order; None: 1, 2, ...
        known: names of what earlier runs wrote to the folder, and of what this one will draw.
        skeleton: what the keypoints of detections are; None: they have none.
    """

    folder: Path
    classes: Classes
    about: dict[str, Any]
    image_ids: Mapping[Path, int] | None = None
    known: Sequence[str] = ()
    skeleton: Skeleton | None = None
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)

    def add(self, path: Path, size: Size, found: Detections, drawn: PurePosixPath | None) -> None:
        """Note one image's detections; `size`: of the upright image; `drawn`: its drawing's name in the folder."""
        number = len(self.images) + 1 if self.image_ids is None else self.image_ids[path]
        record = {"id": number, "file_name": str(path), "width": size.width, "height": size.height}
        self.images.append(record | ({} if drawn is None else {"drawn": str(drawn)}))
        records = found.to_coco(image_id=number, classes=self.classes)
        boxes = [each["bbox"][2] * each["bbox"][3] for each in records]
        areas = boxes if found.masks is None else found.masks.areas().tolist()
        for each, area in zip(records, areas, strict=True):
            self.annotations.append({"id": len(self.annotations) + 1, **each, "area": float(area), "iscrowd": 0})

    def skip(self, path: Path, reason: str) -> None:
        """Note an image that can't be read."""
        self.skipped.append({"file_name": str(path), "reason": reason})

    def save(self, *, beginning: bool = False) -> None:
        """Write the files, each atomically; the JSON, which says what is ours in the folder, before all others.

        Args:
            beginning: nothing is drawn yet: also what will be is called ours, so that it is after a kill.

        Raises:
            OutputError: one can't be written.
        """
        data = {
            "info": {"made_by": MADE_BY, "version": __version__, "files": self._ours(beginning), **self.about},
            "images": self.images,
            "categories": list_categories(self.classes, self.skeleton),
            "annotations": self.annotations,
            "skipped": self.skipped,
        }
        write_text(self.folder / NAME, json.dumps(data, indent=1) + "\n")
        write_csv(self.folder / TABLE, self._rows(), DETECTION_COLUMNS)
        if RESULTS in self.files:
            write_text(self.folder / RESULTS, json.dumps(self._results()) + "\n")

    @property
    def files(self) -> list[str]:
        """Names of the files that this run writes beside the drawn images."""
        return [NAME, TABLE] if self.image_ids is None else [NAME, TABLE, RESULTS]

    def _ours(self, beginning: bool) -> list[str]:
        """Names of all files of `fpn predict` in the folder that `images` does not tell."""
        told = {image.get("drawn") for image in self.images}
        there = [name for name in self.known if beginning or os.path.lexists(self.folder / name)]
        return [name for name in dict.fromkeys([*self.files, *there]) if name not in told]

    def _rows(self) -> Iterator[dict[str, Any]]:
        names = dict(zip(self.classes.ids, self.classes.names, strict=True))
        files = self._file_names()
        return (detection_row(each, files[each["image_id"]], names[each["category_id"]]) for each in self.annotations)

    def _results(self) -> list[dict[str, Any]]:
        files = self._file_names()
        without = {"id", "area", "iscrowd"}
        return [
            {key: value for key, value in each.items() if key not in without} | {"file_name": files[each["image_id"]]}
            for each in self.annotations
        ]

    def _file_names(self) -> dict[int, str]:
        return {image["id"]: image["file_name"] for image in self.images}

    def count(self, scores: Mapping[str, float]) -> str:
        """How many of each class reach its score, most frequent first, such as "12 RBC, 1 WBC"."""
        names = dict(zip(self.classes.ids, self.classes.names, strict=True))
        found = ((names[each["category_id"]], each["score"]) for each in self.annotations)
        sure = [name for name, score in found if score >= scores[name]]
        counts = sorted({name: sure.count(name) for name in names.values()}.items(), key=lambda pair: -pair[1])
        return ", ".join(f"{count} {name}" for name, count in counts if count) or "nothing"


def save_image(image: Image.Image, path: Path) -> None:
    """Write a drawn image as JPEG, atomically; thin coloured lines need full colour resolution."""
    with atomic_path(path) as temporary:
        image.save(temporary, "JPEG", quality=92, subsampling=0)
