"""COCO json: given directly, beside its images, under annotations/, or as Roboflow exports it.

Category ids and image ids stay as they are, whatever their gaps; labels go by ascending category id, so that the json
files of two splits agree however each orders its list. Boxes are x, y, width, height, 0-based. `iscrowd` becomes
`ignore`.
"""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fpn.data.formats.coco_ids import names_differ, renumber
from fpn.data.formats.files import SHOWN_ISSUES, Folder, enumerate_issues, is_image, make_classes, read_json, shorten
from fpn.data.formats.geometry import Corners, bounds_of, bounds_of_code, has_extent, turned_bounds
from fpn.data.formats.keypoints import checked_keypoints, skeleton_of_categories, unnamed_keypoints
from fpn.data.formats.layout import WHOLE
from fpn.data.formats.locate import locate
from fpn.data.formats.table import TableDataset
from fpn.data.formats.table_builder import Options, TableBuilder
from fpn.errors import DataError, DataNotFoundError
from fpn.shapes import Size
from fpn.structures import Classes, Skeleton

ROBOFLOW = "_annotations.coco.json"
# What a table holds of an entry; a check keeps the rest for whoever writes the dataset again.
_IMAGE_KEYS = frozenset({"id", "file_name", "height", "width"})
_OBJECT_KEYS = frozenset({"image_id", "category_id", "bbox", "area", "segmentation"})
_KEYPOINT_KEYS = frozenset({"keypoints", "num_keypoints"})


def read_split(file: Path, root: Path, split: str, options: Options) -> TableDataset:
    """Read one json file.

    Args:
        file: the file.
        root: the dataset's folder.
        split: what it is called.
        options: what the caller chose.

    Raises:
        DataError, DataNotFoundError: it is broken, or images are missing.
    """
    with _collector_paused():
        return _Reader(file, root, split, options).read()


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Millions of fresh objects and no cycles among them: the collector would only walk them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Reader:
    """One json file on its way to a table."""

    def __init__(self, file: Path, root: Path, split: str, options: Options) -> None:
        self.file, self.split, self.options = file, split, options
        self.folder = Folder(options.images or root)
        options.used(Path(os.path.abspath(file)))  # noqa: PTH100
        self.mended: dict[str, str] = {}
        self.doubtful: set[int] = set()
        self.pointless = False
        self.where = self.folder.relative(Path(os.path.abspath(file)))  # noqa: PTH100  # as Folder's own root
        self.builder = TableBuilder(self.folder.root, options)

    def read(self) -> TableDataset:
        data = read_json(self.file, self.options.limits.json_bytes)
        lists = (self._list(data, key) for key in ("images", "annotations", "categories"))
        images, records, categories = self._renumbered(*lists)
        classes, labels = self._classes(categories, records)
        skeleton = self._skeleton(categories)
        if skeleton is None and not self.pointless and (unnamed := unnamed_keypoints(records)):
            message = f"{self.where}: {unnamed}"
            self.options.remark("keypoints-unnamed", {self.where: message}, message)
        rows = self._rows(images)
        names = self._locate(images, rows)
        rows, names = self._merged(images, rows, names)
        by_image = self._group(records, rows, len(images))
        for position, name in names.items():
            image = images[position]
            self.builder.add_image(name, image["id"], self._size(image), extra=self._extra(image, _IMAGE_KEYS))
            for number in by_image[position]:
                self._add(records[number], number, labels, skeleton)
        split, listed = self.split, list(names.values())
        if self.mended:
            self.options.remark("box-mended", self.mended, _some_mended(self.mended))
        return self.builder.finish(
            classes,
            self.folder.root.name if split == WHOLE else f"{self.folder.root.name}/{split}",
            lambda row, origin: f"{self.where}: {self._called(records[origin], origin)} of {listed[row]}",
            header=self._header(data, categories),
            skeleton=skeleton,
        )

    def _extra(self, entry: dict[str, Any], known: frozenset[str]) -> dict[str, Any] | None:
        if self.options.notes is None:
            return None
        return {key: value for key, value in entry.items() if key not in known}

    def _header(self, data: dict[str, Any], categories: list[dict[str, Any]]) -> dict[str, Any] | None:
        if self.options.notes is None:
            return None
        header = {key: value for key, value in data.items() if key not in ("images", "annotations", "categories")}
        by_id = {entry["id"]: entry for entry in categories if type(entry.get("id")) is int}
        if self.pointless:
            undeclared = {"keypoints", "skeleton"}
            by_id = {n: {k: v for k, v in entry.items() if k not in undeclared} for n, entry in by_id.items()}
        return {**header, "categories": by_id}

    def _list(self, data: Any, key: str) -> list[dict[str, Any]]:
        if isinstance(data, list):
            raise DataError(
                f"{self.file}: holds a list, as detection results do. Ground truth is an object with 'images', "
                "'annotations' and 'categories'."
            )
        if not isinstance(data, dict) or key not in data:
            keys = list(data)[:SHOWN_ISSUES] if isinstance(data, dict) else []
            has = f"it has {', '.join(map(shorten, keys))}" if keys else "empty"
            raise DataError(f"{self.file}: no '{key}' list in it ({has}). Is it a COCO detection json?")
        found = data[key]
        if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
            return found
        error = DataError(f"{self.file}: '{key}' must be a list of objects, it is {shorten(found)}")
        if not isinstance(found, list):
            raise error
        self.options.fault("entry-broken", error, self.where)
        return [entry for entry in found if isinstance(entry, dict)]

    def _renumbered(self, *lists: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], ...]:
        """In a check, the lists with other ids in place of those that are no whole numbers from 0 on."""
        if self.options.notes is None:
            return lists
        renumbered = renumber(*lists)
        for message in renumbered.told:
            self.options.fault("id-unusable", DataError(f"{self.where}: {message}"), self.where)
        return renumbered.images, renumbered.annotations, renumbered.categories

    def _whole(self, entry: dict[str, Any], key: str, what: str) -> int:
        value = entry.get(key)
        if type(value) is int and 0 <= value < 2**63:
            return value
        got = "is missing" if key not in entry else f"is {shorten(value)}"
        raise DataError(f"{self.where}: '{key}' of {what} {got}; it must be a whole number from 0 on")

    def _classes(
        self, categories: list[dict[str, Any]], records: list[dict[str, Any]]
    ) -> tuple[Classes, dict[int, int]]:
        """The classes, and category id -> label."""
        if not categories:
            raise DataError(f"{self.where}: 'categories' is empty. Export the annotations again with their classes.")
        sound = [entry for number, entry in enumerate(categories, start=1) if self._is_category(entry, number)]
        given = (record.get("category_id") for record in records) if self.file.name == ROBOFLOW else ()
        used = {number for number in given if type(number) is int}
        kept = [entry for entry in sound if not self._is_group(entry, sound, used)]
        kept.sort(key=lambda entry: int(entry["id"]))
        names, ids = [entry["name"].strip() for entry in kept], [int(entry["id"]) for entry in kept]
        where = f"{self.where}: 'categories'"
        try:
            classes = make_classes(names, ids, where)
        except DataError as error:
            self.options.fault("class-broken", error, self.where)
            first = dict(zip(reversed(names), reversed(ids), strict=True))
            by_id = {number: name for name, number in sorted(first.items(), key=lambda pair: pair[1])}
            classes = make_classes(list(by_id.values()), list(by_id), where)
        labels = {name: label for label, name in enumerate(classes.names)}
        return classes, {number: labels[name] for name, number in zip(names, ids, strict=True) if name in labels}

    def _skeleton(self, categories: list[dict[str, Any]]) -> Skeleton | None:
        try:
            return skeleton_of_categories(categories, self.where)
        except DataError as error:
            self.options.fault("keypoints-broken", error, self.where)
            self.pointless = True
            return None

    def _is_category(self, entry: dict[str, Any], number: int) -> bool:
        try:
            self._whole(entry, "id", f"category {number}")
        except DataError as error:
            self.options.fault("class-broken", error, self.where)
            return False
        if not isinstance(entry.get("name"), str) or not entry["name"].strip():
            self.options.fault(
                "class-broken", DataError(f"{self.where}: category {entry['id']} has no name"), self.where
            )
            entry["name"] = f"class-{entry['id']}"
        return True

    def _is_group(self, entry: dict[str, Any], categories: list[dict[str, Any]], used: set[int]) -> bool:
        """Roboflow puts the project itself first, as category 0, the parent of the rest and never an object's class."""
        if self.file.name != ROBOFLOW or entry["id"] != 0 or 0 in used:
            return False
        return any(other.get("supercategory") == entry["name"] for other in categories if other is not entry)

    def _rows(self, images: list[dict[str, Any]]) -> dict[int, int]:
        """Image id -> position in `images`, of those with an id of their own and a file name."""
        rows: dict[int, int] = {}
        for position, entry in enumerate(images):
            try:
                number = self._whole(entry, "id", f"image {position + 1}")
            except DataError as error:
                self.options.fault("entry-broken", error, self.where)
                continue
            if number in rows:
                names = (shorten(images[k].get("file_name")) for k in (rows[number], position))
                message = f"{self.where}: image id {number} is given twice, to {' and '.join(names)}. "
                self.options.fault("id-repeated", DataError(message + "Give each image its own."), self.where)
                if names_differ(images[rows[number]], entry):
                    self.doubtful.add(number)
                continue
            rows[number] = position
        # Whose their objects are can't be told.
        return {number: position for number, position in rows.items() if number not in self.doubtful}

    def _locate(self, images: list[dict[str, Any]], rows: dict[int, int]) -> dict[int, str]:
        """Position in `images` -> path relative to the root.

        Raises:
            DataNotFoundError: some do not exist. (A check sees that when it looks at the images.)
        """
        for number, position in rows.items():
            if not isinstance(images[position].get("file_name"), str):
                message = f"{self.where}: image {position + 1} (id {number}) has no 'file_name'"
                self.options.fault("entry-broken", DataError(message), self.where)
        named = [k for k in rows.values() if isinstance(images[k].get("file_name"), str)]
        base = self._image_folder([images[k]["file_name"] for k in named])
        written = dict.fromkeys(images[k]["file_name"] for k in named)
        found = locate(self.folder, written, lambda _: (base,), self.where, split=self.split, wanted=is_image)
        for error in found.outside.values():
            self.options.fault("path-outside", error, self.where)
        if found.repaired:
            self.options.remark("name-repaired", found.told(self.where), found.summary(self.where))
        if found.missing and self.options.notes is None:
            self._stop_for(list(found.missing.values()), len(found.paths))
        paths = {k: found.paths.get(images[k]["file_name"]) for k in named}
        return {k: self.folder.relative(path) for k, path in paths.items() if path is not None}

    def _merged(
        self, images: list[dict[str, Any]], rows: dict[int, int], names: dict[int, str]
    ) -> tuple[dict[int, int], dict[int, str]]:
        """Each image once: exports that list it anew for each object would teach that the others are background."""
        first: dict[str, int] = {}
        for position, name in names.items():
            first.setdefault(name, position)
        if len(first) == len(names):
            return rows, names
        ids: dict[str, list[int]] = {}
        for position, name in names.items():
            ids.setdefault(name, []).append(images[position]["id"])
        told = {
            name: f"{self.where}: {name} stands in 'images' {len(numbers)} times (ids {', '.join(map(str, numbers))}): "
            "its objects are put together"
            for name, numbers in ids.items()
            if len(numbers) > 1
        }
        more = f", and so are those of {len(told) - 1} more" if len(told) > 1 else ""
        self.options.remark("image-merged", told, next(iter(told.values())) + more)
        joined = {number: first[names[k]] if k in names else k for number, k in rows.items()}
        return joined, {k: name for k, name in names.items() if first[name] == k}

    def _candidates(self) -> list[Path]:
        root, split = self.folder.root, self.split
        stem = split.rstrip("0123456789")
        own = [f"images/{split}", split, f"{split}/images", f"images/{stem}", stem]
        subfolders = [*own, "images", "data", "JPEGImages"]
        beside = Path(os.path.abspath(self.file)).parent  # noqa: PTH100
        if not beside.is_relative_to(root):
            return [root, *(root / name for name in subfolders)]
        return [beside] if self.file.name == ROBOFLOW else [*(root / name for name in subfolders), root, beside]

    def _image_folder(self, names: list[str]) -> Path:
        """The folder that has most of a sample of the images; the first of equals."""
        sample = names[:: max(1, len(names) // 20)]
        candidates = self._candidates()
        hits = [sum(self.folder.has(folder / name) for name in sample if "\0" not in name) for folder in candidates]
        return candidates[hits.index(max(hits))]

    def _stop_for(self, missing: list[str], count: int) -> None:
        if len(missing) == count:
            looked = ", ".join(dict.fromkeys(self.folder.relative(folder) for folder in self._candidates()))
            raise DataNotFoundError(
                f"{self.where}: none of its {count} images was found, such as {Path(missing[0]).name}. Looked in "
                f"{looked} of {self.folder.root}. Put the images into images/ there, or name their folder (--images)."
            )
        faults = [f"{self.folder.relative(path)} does not exist" for path in missing]
        for shown, path in enumerate(missing[:SHOWN_ISSUES]):
            faults[shown] += self.folder.neighbour(path)
        head = f"{self.where}: {len(missing)} of {count} images are missing:"
        faults = faults if len(faults) > 1 else [f"{self.where}: image {faults[0]}"]
        raise DataNotFoundError(enumerate_issues(head, faults, "Restore them, or take them out of the json."))

    def _size(self, entry: dict[str, Any]) -> Size | None:
        values = [entry.get("height") or 0, entry.get("width") or 0]
        if not all(isinstance(value, (int, float)) and 0 <= value < 2**31 and value == int(value) for value in values):
            message = (
                f"{self.where}: image {shorten(entry['file_name'])} has width {shorten(values[1])} and height "
                f"{shorten(values[0])}; both must be whole numbers of pixels, or absent"
            )
            self.options.fault("size-unusable", DataError(message), self.where)
            return None
        return Size(int(values[0]), int(values[1])) if all(values) else None

    def _group(self, records: list[dict[str, Any]], rows: dict[int, int], count: int) -> list[list[int]]:
        """For each image the positions of its objects in `records`, in order."""
        grouped: list[list[int]] = [[] for _ in range(count)]
        seen: dict[int, int] = {}
        for position, record in enumerate(records):
            try:
                self._check_id(record, position, seen)
                image_id = self._whole(record, "image_id", self._called(record, position))
            except DataError as error:
                self.options.fault("entry-broken", error, self.where)
                continue
            if image_id in rows:
                grouped[rows[image_id]].append(position)
                continue
            why = "two images have" if image_id in self.doubtful else "'images' does not list"
            message = (
                f"{self.where}: {self._called(record, position)} has image_id {image_id}, which {why}. Add the image "
                "or remove the annotation."
            )
            self.options.fault("id-unknown", DataError(message), self.where)
        return grouped

    def _check_id(self, record: dict[str, Any], position: int, seen: dict[int, int]) -> None:
        if "id" not in record:
            return
        number = self._whole(record, "id", f"annotation {position + 1}")
        if seen.setdefault(number, position) != position:
            message = (
                f"{self.where}: annotation id {number} is given to entries {seen[number] + 1} and {position + 1}. "
                "Give each its own."
            )
            self.options.fault("id-repeated", DataError(message), self.where)

    @staticmethod
    def _called(record: dict[str, Any], position: int) -> str:
        return f"annotation id {record['id']}" if "id" in record else f"annotation {position + 1}"

    def _add(self, record: dict[str, Any], position: int, labels: dict[int, int], skeleton: Skeleton | None) -> None:
        category = record.get("category_id")
        if type(category) is not int or category not in labels:
            known = ", ".join(map(str, sorted(labels)[:20])) + (", ..." if len(labels) > 20 else "")
            message = (
                f"{self.where}: {self._called(record, position)} has category_id {shorten(category)}, which "
                f"'categories' does not list (it has {known})"
            )
            self.options.fault("id-unknown", DataError(message), self.where)
            return
        add = partial(
            self.builder.add_object,
            label=labels[category],
            ignore=bool(record.get("iscrowd")) or bool(record.get("ignore")),
            area=_area(record.get("area")),
            origin=position,
            keypoints=() if skeleton is None else self._keypoints(record, position, skeleton),
            extra=self._extra(record, self._known_keys(skeleton)),
        )
        kind = "entry-broken"
        try:
            box = self._box(record, position)
            kind = "outline-broken"
            add(box, segmentation=record.get("segmentation"))
        except (ValueError, TypeError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            message = f"{self.where}: {self._called(record, position)}: {error}"
            self.options.fault(kind, DataError(message), self.where)
            if kind == "outline-broken":
                add(box)

    def _known_keys(self, skeleton: Skeleton | None) -> frozenset[str]:
        """What of an annotation is not kept as it stands beside the table."""
        return _OBJECT_KEYS if skeleton is None and not self.pointless else _OBJECT_KEYS | _KEYPOINT_KEYS

    def _keypoints(self, record: dict[str, Any], position: int, skeleton: Skeleton) -> list[float]:
        try:
            return checked_keypoints(record.get("keypoints"), skeleton)
        except ValueError as error:
            message = f"{self.where}: {self._called(record, position)}: {error}"
            self.options.fault("keypoints-broken", DataError(message), self.where)
            return checked_keypoints(None, skeleton)

    def _box(self, record: dict[str, Any], position: int) -> Corners:
        """The box as written; the outline's bounds if it is none; its own bounds if it is a turned rectangle's."""
        bbox, outline = record.get("bbox"), record.get("segmentation")
        if outline and not _is_box(bbox):
            bounds = self._bounds(outline, needed=not bbox)
            if bounds is not None:
                said = f"bbox {bbox}" if isinstance(bbox, list) and 0 < len(bbox) <= 4 else "no bbox"
                self._mend(record, position, f"has {said}: the bounds of its outline are taken")
                return bounds
        box = _corners(bbox)
        turn = _rotation(record.get("attributes"))
        if not turn:
            return box
        self._mend(record, position, f"is a rectangle turned by {turn:g} degrees: its bounds are taken")
        return turned_bounds(box, turn)

    @staticmethod
    def _bounds(outline: Any, *, needed: bool) -> Corners | None:
        """The bounds of an outline; None: it has none.

        Raises:
            ValueError, TypeError, OverflowError: the same, where they are needed.
        """
        try:
            bounds = bounds_of_code(outline) if isinstance(outline, dict) else bounds_of(outline)
        except (ValueError, TypeError, OverflowError):
            if needed:
                raise
            return None
        return bounds if needed or has_extent(bounds) else None

    def _mend(self, record: dict[str, Any], position: int, how: str) -> None:
        called = self._called(record, position)
        self.mended[f"{self.where}: {called}"] = f"{self.where}: {called} {how}"


def _some_mended(mended: dict[str, str]) -> str:
    more = f", and so on for {len(mended) - 1} more" if len(mended) > 1 else ""
    return next(iter(mended.values())) + more


def _rotation(said: Any) -> float:
    """The angle in degrees by which CVAT says that a rectangle is turned; its box is written as if it were not."""
    angle: Any = said.get("rotation") if isinstance(said, dict) else None
    known = type(angle) in (int, float) and -36000 < angle < 36000
    return float(angle) % 180 if known else 0.0


def _is_box(bbox: Any) -> bool:
    """Whether a bbox is four numbers with an extent; some tools write zeros where there is an outline."""
    try:
        return has_extent(_corners(bbox))
    except (ValueError, OverflowError):
        return False


def _corners(bbox: Any) -> Corners:
    if not isinstance(bbox, list) or len(bbox) != 4:
        raise ValueError(f"bbox is {shorten(bbox)}; it must be [x, y, width, height]")
    for value in bbox:
        if type(value) is not float and type(value) is not int:
            raise ValueError(f"bbox holds {shorten(value)}; it must be [x, y, width, height] in numbers")
    x, y, width, height = bbox
    return float(x), float(y), float(x + width), float(y + height)


def _area(value: Any) -> float:
    """The outline's area; NaN (the box's is taken) for an absent or senseless one."""
    # Compared, not asked whether it is finite: a whole number of 400 digits would not fit the question.
    known = type(value) in (int, float) and 0 < value < 1e300
    return float(value) if known else math.nan
